package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Kinds in the table of manifests.
const (
	kindManifest = "manifest"
	kindKeyList  = "keylist"
)

// maxEnvelope is more than any envelope has: a payload of 1,024 bytes with four
// signatures (docs/format/encoding.md).
const maxEnvelope = 2048 // bytes

// PublishSigned implements fleet.SignedReleases.
func (s *Store) PublishSigned(ctx context.Context, r fleet.Release, envelope []byte, streams []fleet.Stream, judged uint32, now time.Time) (out fleet.Release, created bool, err error) {
	return s.publishSigned(ctx, r, envelope, streams, now, func(t *tx) error {
		newest, err := newestKeyList(t)
		if err == nil && newest.Version != judged {
			err = listMoved(newest.Version, judged)
		}
		return err
	})
}

// PublishWithList implements fleet.SignedIntake. The key list comes first, as for a
// device: it may name the product.
func (s *Store) PublishWithList(ctx context.Context, r fleet.Release, envelope []byte, streams []fleet.Stream, l fleet.KeyList, after uint32, products []string, now time.Time) (out fleet.Release, created bool, err error) {
	if err := checkKeyList(l, products); err != nil {
		return fleet.Release{}, false, err
	}
	return s.publishSigned(ctx, r, envelope, streams, now, func(t *tx) error {
		_, err := s.addKeyList(t, l, after, products, now)
		return err
	})
}

func (s *Store) publishSigned(ctx context.Context, r fleet.Release, envelope []byte, streams []fleet.Stream, now time.Time, before func(*tx) error) (out fleet.Release, created bool, err error) {
	if err := validateRelease(r); err != nil {
		return fleet.Release{}, false, err
	}
	switch {
	case !r.Signed():
		err = fleet.Errorf(fleet.CodeInvalid, "a signed release has a sequence")
	case len(envelope) == 0 || len(envelope) > maxEnvelope:
		err = fleet.Errorf(fleet.CodeInvalid, "the manifest's envelope has %d bytes", len(envelope))
	case len(streams) == 0:
		err = fleet.Errorf(fleet.CodeInvalid, "a signed release has a stream")
	}
	if err != nil {
		return fleet.Release{}, false, err
	}
	r.ManifestDigest = sha256.Sum256(envelope)
	r.Hardware = fleet.CleanText(r.Hardware, fleet.MaxText)
	err = s.write(ctx, func(t *tx) error {
		out, created = fleet.Release{}, false
		if err := before(t); err != nil {
			return err
		}
		builds, err := buildsOf(t, r)
		if err != nil {
			return err
		}
		old, err := fleet.FindBuild(r, builds)
		if err != nil {
			return err
		}
		if err := refuseByTerms(t, r, chunksOf(streams)...); err != nil {
			return err
		}
		if old != nil {
			out = *old
			// Patches may be made long after the signing.
			added, err := insertStreams(t, out, streams)
			if err != nil {
				return err
			}
			noted, err := noteChecked(t, &out, r.Checked)
			if err != nil || added == 0 && !noted {
				return err
			}
			return s.catalogueChanged(t)
		}
		if len(builds) > 0 {
			r.State = builds[0].State // published or a draft together
		}
		if err := otherImage(t, r); err != nil {
			return err
		}
		if err := s.insertSigned(t, &r, envelope, streams, now); err != nil {
			return err
		}
		out, created = r, true
		return s.catalogueChanged(t)
	})
	if err != nil {
		return fleet.Release{}, false, err
	}
	return out, created, nil
}

// insertSigned makes the rows of a signed release that is new.
func (s *Store) insertSigned(t *tx, r *fleet.Release, envelope []byte, streams []fleet.Stream, now time.Time) error {
	if err := addManifest(t, manifestRow{digest: r.ManifestDigest, kind: kindManifest, envelope: envelope, product: r.Product, version: r.Version,
		epoch: r.Epoch, sequence: r.Sequence, security: r.SecurityVersion, image: r.Image.Digest[:]}, now); err != nil {
		return err
	}
	if err := insertRelease(t, r, now); err != nil {
		return err
	}
	if _, err := insertStreams(t, *r, streams); err != nil {
		return err
	}
	if err := requireSigned(t, r.Product, now); err != nil {
		return err
	}
	name := fleet.EventPublished
	if r.State == fleet.ReleaseDraft {
		name = fleet.EventDrafted
	}
	return addEvent(t, fleet.Event{Time: now, Version: r.Version, Name: name, Proven: true,
		Detail: fmt.Sprintf("%s %s, epoch %d, sequence %d, manifest %s", r.Product, r.Name(), r.Epoch, r.Sequence, r.ManifestDigest)})
}

// insertStreams stores those that are not known yet, and what is new of others.
func insertStreams(t *tx, r fleet.Release, streams []fleet.Stream) (added int64, err error) {
	for _, m := range streams {
		var sheet []byte // NULL
		if len(m.Sheet) > 0 {
			d := m.SheetDigest()
			sheet = d[:]
		}
		n, err := affected(t.Exec("INSERT INTO streams ("+streamColumns+", sheet_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
			m.Digest[:], r.ID, m.Kind, m.Chunk, m.Length, m.Root[:], blob(m.Sheet), flag(m.Proven), sheet))
		if err != nil {
			return added, err
		}
		added += n
		if n > 0 {
			continue
		}
		// An image that is issued anew has the same streams: each is stored once.
		if err := sameStream(t, m); err != nil {
			return added, err
		}
		// Of two sheets the newer one was judged by the newer key list.
		if n, err = affected(t.Exec("UPDATE streams SET sheet = ?1, sheet_digest = ?2, proven = CASE WHEN proven = 1 THEN 1 ELSE ?3 END WHERE digest = ?4 AND kind <> 'raw' AND (sheet <> ?1 OR proven < ?3)",
			blob(m.Sheet), sheet, flag(m.Proven), m.Digest[:])); err != nil {
			return added, err
		}
		added += n
	}
	return added, nil
}

// buildsOf are the signed releases of r's product, epoch and sequence.
func buildsOf(t *tx, r fleet.Release) ([]fleet.Release, error) {
	return Collect(scanRelease)(t.Query("SELECT "+releaseColumns+` FROM releases r
 WHERE r.product = ? AND r.epoch = ? AND r.sequence = ? AND r.manifest_digest IS NOT NULL ORDER BY r.slot`, r.Product, r.Epoch, r.Sequence))
}

// otherImage refuses a version that stands for other bytes already: people would
// take the one for the other. An image that is issued anew keeps its version, and
// builds for other slots have it too.
func otherImage(t *tx, r fleet.Release) error {
	var n int
	err := t.Row("SELECT count(*) FROM releases WHERE product = ?1 AND version = ?2 AND digest != ?3 AND (slot = ?4 OR slot = -1 OR ?4 = -1)",
		r.Product, r.Version, r.Image.Digest[:], slotColumn(r)).Scan(&n)
	if err == nil && n > 0 {
		err = &fleet.Error{Code: fleet.CodeConflict, Message: fmt.Sprintf("%s %s is published already, with another image", r.Product, r.Name()),
			Hint: "sign it under another version"}
	}
	return err
}

func sameStream(t *tx, m fleet.Stream) error {
	old, err := scanStream(t.Row("SELECT "+streamColumns+" FROM streams WHERE digest = ?", m.Digest[:]))
	if err != nil {
		return err
	}
	if old.Kind != m.Kind || old.Chunk != m.Chunk || old.Length != m.Length || old.Root != m.Root {
		return fleet.Errorf(fleet.CodeConflict, "stream %s is known already, as another one", m.Digest)
	}
	return nil
}

type manifestRow struct {
	digest                    fleet.Digest
	kind                      string
	envelope                  []byte
	product, version          string
	epoch, sequence, security uint32
	image                     []byte
}

func addManifest(t *tx, m manifestRow, now time.Time) error {
	_, err := t.Exec(`INSERT INTO manifests (digest, kind, envelope, product, version, epoch, sequence, security_version, image_digest, added_at)
 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		m.digest[:], m.kind, blob(m.envelope), m.product, m.version, m.epoch, m.sequence, m.security, blob(m.image), micros(now))
	return err
}

// blob is p as it is stored: nil would be NULL.
func blob(p []byte) []byte { return append([]byte{}, p...) }

// Manifest implements fleet.SignedReleases.
func (s *Store) Manifest(ctx context.Context, digest fleet.Digest) (fleet.Manifest, error) {
	m := fleet.Manifest{Digest: digest}
	var at int64
	err := s.db.Row(ctx, "SELECT envelope, added_at FROM manifests WHERE digest = ? AND kind = '"+kindManifest+"'", digest[:]).Scan(&m.Envelope, &at)
	m.AddedAt = fromMicros(at)
	return m, s.db.Wrap("manifest", notFound(err, "no manifest has the digest %s", digest))
}

const streamColumns = "digest, release_id, kind, chunk, length, root, sheet, proven"

func scanStream(row Scanner) (m fleet.Stream, err error) {
	var digest, root []byte
	err = row.Scan(&digest, &m.ReleaseID, &m.Kind, &m.Chunk, &m.Length, &root, &m.Sheet, &m.Proven)
	copy(m.Digest[:], digest)
	copy(m.Root[:], root)
	return m, err
}

// Stream implements fleet.SignedReleases.
func (s *Store) Stream(ctx context.Context, digest fleet.Digest) (fleet.Stream, error) {
	m, err := scanStream(s.db.Row(ctx, "SELECT "+streamColumns+" FROM streams WHERE digest = ?", digest[:]))
	return m, s.db.Wrap("stream", notFound(err, "no stream has the digest %s", digest))
}

// releaseStreams joins by the image: one that was issued anew, or for another product, has
// the same files, and each is stored once.
const releaseStreams = `SELECT DISTINCT m.digest, r.id, m.kind, m.chunk, m.length, m.root, m.sheet, m.proven FROM releases r
 JOIN releases o ON o.digest = r.digest AND o.manifest_digest IS NOT NULL
 JOIN streams m ON m.release_id = o.id WHERE r.manifest_digest IS NOT NULL AND (?1 = 0 OR r.id = ?1) ORDER BY r.id, m.chunk`

// Streams implements fleet.SignedReleases.
func (s *Store) Streams(ctx context.Context, releaseID int64) (list []fleet.Stream, err error) {
	err = s.db.Read(ctx, "streams", func(v Runner) error {
		list, err = Collect(scanStream)(v.Query(releaseStreams, releaseID))
		return err
	})
	return list, err
}

// AllStreams implements fleet.SignedIntake.
func (s *Store) AllStreams(ctx context.Context) (list []fleet.Stream, err error) {
	err = s.db.Read(ctx, "streams", func(v Runner) error {
		list, err = Collect(scanStream)(v.Query("SELECT " + streamColumns + " FROM streams ORDER BY release_id, digest"))
		return err
	})
	return list, err
}

// NativeSnapshot implements fleet.NativeCatalogue.
func (s *Store) NativeSnapshot(ctx context.Context) (out fleet.NativeSnapshot, err error) {
	err = s.db.Read(ctx, "catalogue", func(v Runner) error {
		if err := v.Row("SELECT generation FROM catalogue").Scan(&out.Generation); err != nil {
			return err
		}
		if out.Products, err = productsOf(v); err != nil {
			return err
		}
		l, err := scanKeyList(v.Row("SELECT " + keyListColumns + " FROM keylists ORDER BY version DESC LIMIT 1"))
		if err == nil {
			out.List = &l
		} else if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		out.Releases, err = Collect(func(row Scanner) (r fleet.SignedRelease, err error) {
			r.Release, err = scanReleaseAnd(row, &r.Envelope)
			return r, err
		})(v.Query("SELECT " + releaseColumns + ", m.envelope FROM releases r JOIN manifests m ON m.digest = r.manifest_digest ORDER BY r.published_at DESC"))
		if err != nil {
			return err
		}
		streams, err := Collect(scanStream)(v.Query(releaseStreams, 0))
		if err != nil {
			return err
		}
		if out.Rollouts, out.Groups, out.Only, err = rolloutsOf(v); err != nil {
			return err
		}
		if out.Terms, err = termsOf(v); err != nil {
			return err
		}
		of := map[int64][]fleet.Stream{}
		for _, m := range streams {
			of[m.ReleaseID] = append(of[m.ReleaseID], m)
		}
		for i := range out.Releases {
			out.Releases[i].Streams = of[out.Releases[i].ID]
		}
		return nil
	})
	return out, err
}

// refuseUnsigned is where the policy of a product holds on every way in.
func refuseUnsigned(t *tx, product string) error {
	var only bool
	err := t.Row("SELECT signed_only FROM products WHERE name = ?", product).Scan(&only)
	if errors.Is(err, sql.ErrNoRows) || err == nil && !only {
		return nil
	}
	if err != nil {
		return err
	}
	return &fleet.Error{Code: fleet.CodeForbidden, Message: fmt.Sprintf("product %s takes signed releases only", product),
		Hint: "sign the image and push the release file; whoever may, can also allow unsigned ones for the product"}
}

// requireSigned has a product take signed images only, unless there is a word on it already.
func requireSigned(t *tx, product string, now time.Time) error {
	_, err := t.Exec(`INSERT INTO products (name, signed_only, added_at, changed_at) VALUES (?1, 1, ?2, ?2)
 ON CONFLICT (name) DO UPDATE SET signed_only = 1, changed_at = excluded.changed_at WHERE products.signed_only = 0 AND products.by_operator = 0`, product, micros(now))
	return err
}

const policyColumns = "name, signed_only, by_operator, added_at, changed_at, terms"

func scanPolicy(row Scanner) (p fleet.ProductPolicy, err error) {
	var added, changed int64
	var terms string
	err = row.Scan(&p.Name, &p.SignedOnly, &p.ByOperator, &added, &changed, &terms)
	p.AddedAt, p.ChangedAt = fromMicros(added), fromMicros(changed)
	if err == nil {
		p.Terms, err = parseTerms(terms)
	}
	return p, err
}

// Policy implements fleet.Policies.
func (s *Store) Policy(ctx context.Context, product string) (fleet.ProductPolicy, error) {
	p, err := scanPolicy(s.db.Row(ctx, "SELECT "+policyColumns+" FROM products WHERE name = ?", product))
	if errors.Is(err, sql.ErrNoRows) {
		return fleet.ProductPolicy{Name: product}, nil
	}
	return p, s.db.Wrap("policy", err)
}

// ListPolicies implements fleet.Policies, in the order of names.
func (s *Store) ListPolicies(ctx context.Context) (list []fleet.ProductPolicy, err error) {
	err = s.db.Read(ctx, "policies", func(v Runner) error {
		list, err = Collect(scanPolicy)(v.Query("SELECT " + policyColumns + " FROM products ORDER BY name"))
		return err
	})
	return list, err
}

// SetPolicy implements fleet.Policies.
func (s *Store) SetPolicy(ctx context.Context, product string, signedOnly bool, now time.Time) error {
	if err := fleet.ValidateProduct(product); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		if _, err := t.Exec(`INSERT INTO products (name, signed_only, by_operator, added_at, changed_at) VALUES (?1, ?2, 1, ?3, ?3)
 ON CONFLICT (name) DO UPDATE SET signed_only = excluded.signed_only, by_operator = 1, changed_at = excluded.changed_at`,
			product, flag(signedOnly), micros(now)); err != nil {
			return err
		}
		detail := product + " takes unsigned images too"
		if signedOnly {
			detail = product + " takes signed releases only"
		}
		if err := addEvent(t, fleet.Event{Time: now, Name: fleet.EventPolicy, Detail: detail, Proven: true}); err != nil {
			return err
		}
		return s.catalogueChanged(t)
	})
}
