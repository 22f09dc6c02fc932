package sqlstore

import (
	"encoding/json"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// micros is how a time is stored: microseconds since 1970, 0 for never.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// stored is t as it reads when it comes back.
func stored(t time.Time) time.Time { return fromMicros(micros(t)) }

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Scanner is a row, or rows.
type Scanner interface{ Scan(...any) error }

// anySlot is the column of a release that may go into any.
const anySlot = -1

// slotColumn is the column of r's slot.
func slotColumn(r fleet.Release) int {
	if !r.HasSlot {
		return anySlot
	}
	return int(r.Slot)
}

const releaseColumns = `r.id, r.product, r.version, r.digest, r.size, r.chip, r.project, r.app_version, r.idf_version, r.chunk_size, r.state, r.published_at,
 r.epoch, r.sequence, r.security_version, r.hardware, r.manifest_digest, r.slot, r.draft, r.notes, r.channel, r.checked`

func scanRelease(row Scanner) (fleet.Release, error) { return scanReleaseAnd(row) }

// scanReleaseAnd reads more columns behind a release's.
func scanReleaseAnd(row Scanner, more ...any) (r fleet.Release, err error) {
	var digest, manifest []byte
	var at int64
	var slot int
	var draft bool
	var checked string
	err = row.Scan(append([]any{&r.ID, &r.Product, &r.Version, &digest, &r.Image.Size, &r.Image.Chip, &r.Image.Project,
		&r.Image.AppVersion, &r.Image.IDFVersion, &r.ChunkSize, &r.State, &at,
		&r.Epoch, &r.Sequence, &r.SecurityVersion, &r.Hardware, &manifest, &slot, &draft, &r.Notes, &r.Channel, &checked}, more...)...)
	copy(r.Image.Digest[:], digest)
	copy(r.ManifestDigest[:], manifest)
	r.PublishedAt = fromMicros(at)
	if slot != anySlot {
		r.HasSlot, r.Slot = true, uint8(slot)
	}
	if draft && r.State == fleet.ReleasePublished {
		r.State = fleet.ReleaseDraft
	}
	if err == nil && checked != "" {
		err = json.Unmarshal([]byte(checked), &r.Checked)
	}
	return r, err
}

// deviceRow is what is in a device's own row.
const deviceRow = `d.id, d.product, d.added_at, d.last_seen, d.running_version, d.nonce, d.clocked, d.signed,
 d.rollback_wanted, d.rollback_reason, d.rollback_sent_at, d.retry_at, d.rollback_number,
 d.strongest_wire, d.native_nonce, d.hardware, d.epoch, d.sequence, d.security_version, d.list_version, d.slots, d.running_slot,
 d.tags, d.attributes, d.ask, d.failures, d.forced, d.heard, d.health`

const deviceColumns = deviceRow + `,
 EXISTS (SELECT 1 FROM keys k WHERE k.owner_kind = 'device' AND k.owner = d.id AND k.purpose = 'v1' AND k.state = 'active'),
 (SELECT count(*) FROM keys k WHERE k.owner_kind = 'device' AND k.owner = d.id AND k.purpose = 'native' AND k.state = 'active')`

// scanDeviceRow reads deviceRow, and more columns behind it. Assurance and NativeKeys are not set.
func scanDeviceRow(row Scanner, more ...any) (d fleet.Device, err error) {
	var added, seen, sent, retry, nonce, native int64
	var tags, attributes, health string
	err = row.Scan(append([]any{&d.ID, &d.Product, &added, &seen, &d.RunningVersion, &nonce, &d.Clocked, &d.Signed,
		&d.RollbackWanted, &d.RollbackReason, &sent, &retry, &d.RollbackNumber,
		&d.StrongestWire, &native, &d.Hardware, &d.Epoch, &d.Sequence, &d.SecurityVersion, &d.ListVersion, &d.Slots, &d.RunningSlot,
		&tags, &attributes, &d.Ask, &d.Failures, &d.Forced, &d.Heard, &health}, more...)...)
	d.AddedAt, d.LastSeen = fromMicros(added), fromMicros(seen)
	d.RollbackSentAt, d.RetryAt = fromMicros(sent), fromMicros(retry)
	d.Nonce, d.NativeNonce = uint64(nonce), uint64(native)
	if err == nil && tags != "" {
		err = json.Unmarshal([]byte(tags), &d.Tags)
	}
	if err == nil && attributes != "" {
		err = json.Unmarshal([]byte(attributes), &d.Attributes)
	}
	if err == nil {
		d.Health, err = fleet.ParseHealth(health)
	}
	return d, err
}

func scanDevice(row Scanner) (fleet.Device, error) { return scanDeviceAnd(row) }

// scanDeviceAnd reads deviceColumns, all but an assurance by the product's key: see assure.
// more are columns behind them.
func scanDeviceAnd(row Scanner, more ...any) (fleet.Device, error) {
	var own bool
	var keys int
	d, err := scanDeviceRow(row, append([]any{&own, &keys}, more...)...)
	d.Assurance, d.NativeKeys = fleet.AssuranceNone, keys
	// Who has spoken natively is heard by its own key alone from then on.
	if own || fleet.WireV1.WeakerThan(d.StrongestWire) {
		d.Assurance = fleet.AssuranceOwn
	}
	return d, err
}

const deploymentColumns = `p.device, p.release_id, r.version, p.state, p.chunks_received, p.chunks_total, p.verified,
 p.boot_status, p.reason, p.proven, p.started_at, p.updated_at, coalesce(p.rollout, 0), p.phase, p.class, p.tries, p.assurance, p.heard, p.raw_only`

const deploymentTables = ` FROM deployments p JOIN releases r ON r.id = p.release_id `

func scanDeployment(row Scanner) (p fleet.Deployment, err error) {
	var started, updated int64
	err = row.Scan(&p.Device, &p.ReleaseID, &p.Version, &p.State, &p.ChunksReceived, &p.ChunksTotal, &p.Verified,
		&p.BootStatus, &p.Reason, &p.Proven, &started, &updated, &p.Rollout, &p.Phase, &p.Class, &p.Tries, &p.Assurance, &p.Heard, &p.RawOnly)
	p.StartedAt, p.UpdatedAt = fromMicros(started), fromMicros(updated)
	return p, err
}
