package sqlite

import (
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

// scanner is a row, or rows.
type scanner interface{ Scan(...any) error }

const releaseColumns = `r.id, r.product, r.version, r.digest, r.size, r.chip, r.project, r.app_version, r.idf_version, r.chunk_size, r.state, r.published_at`

func scanRelease(row scanner) (r fleet.Release, err error) {
	var digest []byte
	var at int64
	err = row.Scan(&r.ID, &r.Product, &r.Version, &digest, &r.Image.Size, &r.Image.Chip, &r.Image.Project,
		&r.Image.AppVersion, &r.Image.IDFVersion, &r.ChunkSize, &r.State, &at)
	copy(r.Image.Digest[:], digest)
	r.PublishedAt = fromMicros(at)
	return r, err
}

const deviceColumns = `d.id, d.product, d.added_at, d.last_seen, d.running_version, d.nonce, d.clocked, d.signed,
 d.rollback_wanted, d.rollback_reason, d.rollback_sent_at, d.retry_at,
 EXISTS (SELECT 1 FROM keys k WHERE k.owner_kind = 'device' AND k.owner = d.id AND k.purpose = 'v1' AND k.state = 'active')`

// scanDevice reads all but an assurance by the product's key: see Store.assure.
func scanDevice(row scanner) (d fleet.Device, err error) {
	var added, seen, sent, retry, nonce int64
	var own bool
	err = row.Scan(&d.ID, &d.Product, &added, &seen, &d.RunningVersion, &nonce, &d.Clocked, &d.Signed,
		&d.RollbackWanted, &d.RollbackReason, &sent, &retry, &own)
	d.AddedAt, d.LastSeen = fromMicros(added), fromMicros(seen)
	d.RollbackSentAt, d.RetryAt = fromMicros(sent), fromMicros(retry)
	d.Nonce = uint64(nonce)
	d.Assurance = fleet.AssuranceNone
	if own {
		d.Assurance = fleet.AssuranceOwn
	}
	return d, err
}

const deploymentColumns = `p.device, p.release_id, r.version, p.state, p.chunks_received, p.chunks_total, p.verified,
 p.boot_status, p.reason, p.proven, p.started_at, p.updated_at`

const deploymentTables = ` FROM deployments p JOIN releases r ON r.id = p.release_id `

func scanDeployment(row scanner) (p fleet.Deployment, err error) {
	var started, updated int64
	err = row.Scan(&p.Device, &p.ReleaseID, &p.Version, &p.State, &p.ChunksReceived, &p.ChunksTotal, &p.Verified,
		&p.BootStatus, &p.Reason, &p.Proven, &started, &updated)
	p.StartedAt, p.UpdatedAt = fromMicros(started), fromMicros(updated)
	return p, err
}
