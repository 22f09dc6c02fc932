package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

var (
	_ fleet.Derivations = (*Store)(nil)
	_ fleet.StreamKeys  = (*Store)(nil)
)

// Sheet is the stream whose sheet's envelope has that digest; CodeNotFound where there is none.
func (s *Store) Sheet(ctx context.Context, digest fleet.Digest) (fleet.Stream, error) {
	m, err := scanStream(s.db.Row(ctx, "SELECT "+streamColumns+" FROM streams WHERE sheet_digest = ? LIMIT 1", digest[:]))
	return m, s.db.Wrap("sheet", notFound(err, "no stream sheet has the digest %s", digest))
}

// CountAsks implements fleet.Derivations. Devices of one kind that run one image say the
// same: there are few rows.
func (s *Store) CountAsks(ctx context.Context, since time.Time) (list []fleet.AskCount, err error) {
	err = s.db.Read(ctx, "devices", func(v Runner) error {
		list, err = Collect(func(row Scanner) (c fleet.AskCount, err error) {
			return c, row.Scan(&c.Product, &c.Ask, &c.Devices)
		})(v.Query("SELECT product, ask, count(*) FROM devices WHERE ask <> '' AND last_seen >= ? GROUP BY product, ask ORDER BY product, ask", micros(since)))
		return err
	})
	return list, err
}

const derivationColumns = "release_id, base, profile, state, devices, percent, sent, stream, reason, tries, lease, changed_at"

func scanDerivation(row Scanner) (d fleet.Derivation, err error) {
	var base, stream []byte
	var lease, changed int64
	err = row.Scan(&d.Release, &base, &d.Profile, &d.State, &d.Devices, &d.Percent, &d.Sent, &stream, &d.Reason, &d.Tries, &lease, &changed)
	copy(d.Base[:], base)
	copy(d.Stream[:], stream)
	d.Lease, d.ChangedAt = fromMicros(lease), fromMicros(changed)
	return d, err
}

// ListDerivations implements fleet.Derivations.
func (s *Store) ListDerivations(ctx context.Context, release int64) (list []fleet.Derivation, err error) {
	err = s.db.Read(ctx, "derivations", func(v Runner) error {
		list, err = Collect(scanDerivation)(v.Query("SELECT "+derivationColumns+" FROM derivations WHERE ?1 = 0 OR release_id = ?1 ORDER BY release_id, base, profile", release))
		return err
	})
	return list, err
}

// BeginDerivation implements fleet.Derivations. A lease that ended is anybody's: its
// maker is gone, or so slow that it finds its own gone.
func (s *Store) BeginDerivation(ctx context.Context, d fleet.Derivation, maker string, now time.Time) (begun bool, err error) {
	err = s.writeAlone(ctx, func(t *tx) error {
		n, err := affected(t.Exec(`INSERT INTO derivations (release_id, base, profile, state, devices, percent, sent, reason, tries, maker, lease, changed_at)
 VALUES (?1, ?2, ?3, 'making', ?4, 0, 0, '', 0, ?5, ?6, ?7)
 ON CONFLICT (release_id, base, profile) DO UPDATE SET state = 'making', devices = excluded.devices, percent = 0, sent = 0, stream = NULL, reason = '',
  maker = excluded.maker, lease = excluded.lease, changed_at = excluded.changed_at
  WHERE derivations.state <> 'making' OR derivations.lease <= ?7`,
			d.Release, d.Base[:], d.Profile, d.Devices, maker, micros(d.Lease), micros(now)))
		begun = n > 0
		return err
	})
	return begun && err == nil, err
}

// SaveDerivation implements fleet.Derivations.
func (s *Store) SaveDerivation(ctx context.Context, d fleet.Derivation, maker string, now time.Time) (saved bool, err error) {
	err = s.writeAlone(ctx, func(t *tx) error {
		saved, err = saveDerivation(t, d, maker, now)
		return err
	})
	return saved && err == nil, err
}

func saveDerivation(t *tx, d fleet.Derivation, maker string, now time.Time) (bool, error) {
	var stream []byte // NULL
	if d.State == fleet.DerivationMade {
		stream = d.Stream[:]
	}
	n, err := affected(t.Exec(`UPDATE derivations SET state = ?1, percent = ?2, sent = ?3, stream = ?4, reason = ?5, tries = ?6, lease = ?7, changed_at = ?8
 WHERE release_id = ?9 AND base = ?10 AND profile = ?11 AND maker = ?12 AND state = 'making'`,
		string(d.State), d.Percent, d.Sent, stream, fleet.CleanText(d.Reason, fleet.MaxText), d.Tries, micros(d.Lease), micros(now),
		d.Release, d.Base[:], d.Profile, maker))
	return n > 0, err
}

// PublishDerived implements fleet.Derivations.
func (s *Store) PublishDerived(ctx context.Context, d fleet.Derivation, maker string, m fleet.Stream, judged uint32, now time.Time) (published bool, err error) {
	d.State, d.Stream, d.Sent, d.Percent, d.Lease = fleet.DerivationMade, m.Digest, m.Sent(), 100, time.Time{}
	err = s.write(ctx, func(t *tx) error {
		published = false
		newest, err := newestKeyList(t)
		if err != nil {
			return err
		}
		if newest.Version != judged {
			return listMoved(newest.Version, judged)
		}
		if published, err = saveDerivation(t, d, maker, now); err != nil || !published {
			return err
		}
		r, err := scanRelease(t.Row("SELECT "+releaseColumns+" FROM releases r WHERE r.id = ?", d.Release))
		if err != nil {
			return notFound(err, "no release has the number %d", d.Release)
		}
		if _, err := insertStreams(t, r, []fleet.Stream{m}); err != nil {
			return err
		}
		return s.catalogueChanged(t)
	})
	return published && err == nil, err
}

// aboutStreamKey is what the server's stream key is sealed with.
const aboutStreamKey = "runnel/stream-key/1"

func (s *Store) streamKey(row Scanner) (key fleet.Key, err error) {
	var sealed []byte
	if err := row.Scan(&sealed); err != nil {
		return key, err
	}
	text, err := s.seal.open(sealed, aboutStreamKey)
	if err != nil || len(text) != len(key) {
		return key, &fleet.Error{Code: fleet.CodeInternal, Message: "the server's stream key can't be opened", Err: err,
			Hint: "it was altered in the database: make another with 'runnel keys server --renew', and put that into the key list"}
	}
	copy(key[:], text)
	return key, nil
}

const streamKeyText = "SELECT sealed FROM stream_key WHERE id = 1"

// StreamKey implements fleet.StreamKeys.
func (s *Store) StreamKey(ctx context.Context) (fleet.Key, error) {
	key, err := s.streamKey(s.db.Row(ctx, streamKeyText))
	if errors.Is(err, sql.ErrNoRows) {
		err = fleet.Errorf(fleet.CodeNotFound, "the server has no stream key")
	}
	return key, s.db.Wrap("stream key", err)
}

// AddStreamKey implements fleet.StreamKeys. Of two servers that start at once one's key stays.
func (s *Store) AddStreamKey(ctx context.Context, key fleet.Key, renew bool, now time.Time) (out fleet.Key, err error) {
	sealed, err := s.seal.seal(key[:], aboutStreamKey)
	if err != nil {
		return out, err
	}
	err = s.write(ctx, func(t *tx) error {
		n, err := affected(t.Exec(`INSERT INTO stream_key (id, sealed, created_at) VALUES (1, ?1, ?2)
 ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed, created_at = excluded.created_at WHERE ?3 = 1`, sealed, micros(now), flag(renew)))
		if err != nil {
			return err
		}
		if n > 0 {
			if err := addEvent(t, fleet.Event{Time: now, Name: fleet.EventStreamKey, Detail: "a new one", Proven: true}); err != nil {
				return err
			}
		}
		out, err = s.streamKey(t.Row(streamKeyText))
		return err
	})
	return out, err
}
