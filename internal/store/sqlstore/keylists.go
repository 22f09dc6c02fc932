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

const keyListColumns = "version, generation, first_of_generation, digest, envelope, added_at"

func scanKeyList(row Scanner) (l fleet.KeyList, err error) {
	var digest []byte
	var at int64
	err = row.Scan(&l.Version, &l.Generation, &l.First, &digest, &l.Envelope, &at)
	copy(l.Digest[:], digest)
	l.AddedAt = fromMicros(at)
	return l, err
}

// AddKeyList implements fleet.KeyLists.
func (s *Store) AddKeyList(ctx context.Context, l fleet.KeyList, after uint32, products []string, now time.Time) (out fleet.KeyList, err error) {
	if err := checkKeyList(l, products); err != nil {
		return fleet.KeyList{}, err
	}
	err = s.write(ctx, func(t *tx) error {
		out, err = s.addKeyList(t, l, after, products, now)
		return err
	})
	if err != nil {
		return fleet.KeyList{}, err
	}
	return out, nil
}

func checkKeyList(l fleet.KeyList, products []string) error {
	if len(l.Envelope) == 0 || len(l.Envelope) > maxEnvelope || l.Version == 0 || l.Generation == 0 {
		return fleet.Errorf(fleet.CodeInvalid, "the key list has no envelope, version or generation, or is too long")
	}
	for _, p := range products {
		if err := fleet.ValidateProduct(p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) addKeyList(t *tx, l fleet.KeyList, after uint32, products []string, now time.Time) (fleet.KeyList, error) {
	l.Digest, l.AddedAt = sha256.Sum256(l.Envelope), stored(now)
	newest, err := newestKeyList(t)
	if err != nil {
		return l, err
	}
	if newest.Version != after {
		return l, listMoved(newest.Version, after)
	}
	if l.Version <= after {
		return l, fleet.Errorf(fleet.CodeConflict, "version %d of the key list can't follow version %d", l.Version, after)
	}
	l.First = l.Generation != newest.Generation
	if err := addManifest(t, manifestRow{digest: l.Digest, kind: kindKeyList, version: fmt.Sprint(l.Version), epoch: l.Generation, sequence: l.Version}, now); err != nil {
		return l, err
	}
	if _, err := t.Exec("INSERT INTO keylists ("+keyListColumns+") VALUES (?, ?, ?, ?, ?, ?)",
		l.Version, l.Generation, flag(l.First), l.Digest[:], l.Envelope, micros(now)); err != nil {
		return l, err
	}
	for _, p := range products {
		if err := requireSigned(t, p, now); err != nil {
			return l, err
		}
	}
	if err := addEvent(t, fleet.Event{Time: now, Name: fleet.EventKeyList, Proven: true,
		Detail: fmt.Sprintf("version %d, generation %d, SHA-256 %s", l.Version, l.Generation, l.Digest)}); err != nil {
		return l, err
	}
	return l, s.catalogueChanged(t)
}

// newestKeyList is of version 0 where there is none.
func newestKeyList(t *tx) (fleet.KeyList, error) {
	l, err := scanKeyList(t.Row("SELECT " + keyListColumns + " FROM keylists ORDER BY version DESC LIMIT 1"))
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return l, err
}

func listMoved(newest, judged uint32) error {
	return &fleet.Error{Code: fleet.CodeConflict, Message: fmt.Sprintf("the newest key list is version %d by now, not %d", newest, judged),
		Hint: "look at the newest one and try again", Err: fleet.ErrListMoved}
}

// NewestKeyList implements fleet.KeyLists.
func (s *Store) NewestKeyList(ctx context.Context) (fleet.KeyList, error) {
	l, err := scanKeyList(s.db.Row(ctx, "SELECT "+keyListColumns+" FROM keylists ORDER BY version DESC LIMIT 1"))
	return l, s.db.Wrap("key list", notFound(err, "there is no key list"))
}

// KeyListOf implements fleet.KeyLists.
func (s *Store) KeyListOf(ctx context.Context, generation uint32) (fleet.KeyList, error) {
	l, err := scanKeyList(s.db.Row(ctx, "SELECT "+keyListColumns+" FROM keylists WHERE generation = ? AND first_of_generation = 1", generation))
	return l, s.db.Wrap("key list", notFound(err, "no key list began generation %d here", generation))
}

// ListKeyLists implements fleet.KeyLists.
func (s *Store) ListKeyLists(ctx context.Context) (list []fleet.KeyList, err error) {
	err = s.db.Read(ctx, "key lists", func(v Runner) error {
		list, err = Collect(scanKeyList)(v.Query("SELECT " + keyListColumns + " FROM keylists ORDER BY version DESC"))
		return err
	})
	return list, err
}
