package sqlstore

import (
	"context"
	"database/sql"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// What servers share that have one database. The statements want UPDATE inside WITH,
// which SQLite does not have, and has no need of.

var _ fleet.Replicas = (*Store)(nil)

// PollTaking implements fleet.Replicas.
func (s *Store) PollTaking(ctx context.Context, seen fleet.NativeSeen, keys int64, want fleet.Wanted) (fleet.NativeDevice, bool, error) {
	if err := checkNonce(seen.Nonce); err != nil {
		return fleet.NativeDevice{}, false, err
	}
	var taken bool
	out, err := scanPoll(s.db.Row(ctx, s.texts.pollTake, seen.Device, jsonIDs(want.Releases), jsonIDs(want.Rollouts),
		micros(seen.At), int64(seen.Nonce), seen.Boot, keys, seen.Health.Text()), &taken)
	if err != nil {
		return fleet.NativeDevice{}, false, s.db.Wrap("poll", noDevice(err, seen.Device))
	}
	return out, taken, nil
}

// noOffer is the column of an offer that is not known.
const noOffer = -1

// TakeV1 implements fleet.Replicas.
func (s *Store) TakeV1(ctx context.Context, t fleet.V1Take) (out fleet.V1State, err error) {
	if err := checkNonce(t.New.Nonce); err != nil {
		return out, err
	}
	var nonce int64
	err = s.db.Row(ctx, `WITH taken AS (UPDATE devices SET nonce = ?2, clocked = ?3, signed = 1, heard = (SELECT clock FROM fleet_clock),
  last_seen = CASE WHEN ?4 > last_seen THEN ?4 ELSE last_seen END, strongest_wire = 'v1'
  WHERE id = ?1 AND nonce = ?5 AND nonce < ?2 AND clocked = ?6 AND strongest_wire IN ('', 'v1') RETURNING 1)
 SELECT EXISTS (SELECT 1 FROM taken), d.nonce, d.clocked, d.strongest_wire, d.v1_offer <> -1, d.v1_offer, d.v1_offer_generation, (SELECT generation FROM catalogue)
 FROM devices d WHERE d.id = ?1`, t.Device, int64(t.New.Nonce), flag(t.New.Clocked), micros(t.At), int64(t.By.Nonce), flag(t.By.Clocked)).
		Scan(&out.Taken, &nonce, &out.Known.Clocked, &out.Wire, &out.Offer.Known, &out.Offer.Release, &out.Offer.Generation, &out.Generation)
	out.Known.Nonce = uint64(nonce)
	if err != nil {
		return fleet.V1State{}, s.db.Wrap("nonce", noDevice(err, t.Device))
	}
	return out, nil
}

// OfferV1 implements fleet.Replicas.
func (s *Store) OfferV1(ctx context.Context, device string, o fleet.V1Offer) error {
	release := o.Release
	if !o.Known {
		release = noOffer
	}
	return s.writeAlone(ctx, func(t *tx) error {
		n, err := affected(t.Exec("UPDATE devices SET v1_offer = ?, v1_offer_generation = ? WHERE id = ?", release, o.Generation, device))
		if err == nil && n == 0 {
			err = noDevice(sql.ErrNoRows, device)
		}
		return err
	})
}

// Alone implements fleet.RolloutEngine. On a database that servers share f runs in one
// transaction, which it ends with where the connection is lost: whoever steps next finds
// all of the step or nothing.
func (s *Store) Alone(ctx context.Context, f func(fleet.StepStore) error) (ran bool, err error) {
	if s.dialect.TryStep == "" {
		return true, f(s)
	}
	err = s.db.Write(ctx, "step", func(r Runner) error {
		if err := r.Row(s.dialect.TryStep).Scan(&ran); err != nil || !ran {
			return err
		}
		return f(&Store{inside{r, s.db}, s.shared})
	})
	return ran && err == nil, err
}

// inside is a database in a transaction of its: what is written in it is there or not with all of it.
type inside struct {
	Runner
	db DB
}

func (i inside) Write(_ context.Context, _ string, f func(Runner) error) error { return f(i.Runner) }

func (i inside) Read(_ context.Context, _ string, f func(Runner) error) error { return f(i.Runner) }

func (i inside) Row(_ context.Context, text string, args ...any) Scanner {
	return i.Runner.Row(text, args...)
}

func (i inside) Wrap(op string, err error) error { return i.db.Wrap(op, err) }
