// Package sqlstore is the domain of internal/fleet in SQL: the statements and what
// is decided around them, once, for every database. What a database does its own
// way, transactions, pools and errors, is behind DB; what it says in other words is
// a Dialect. internal/store/sqlite and internal/store/postgres have one each.
//
// Keys are sealed (keys.go), tokens are hashes (tokens.go). Times are stored as
// microseconds and come back in UTC, flags as 0 and 1.
package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"io"
	"sync"
	"sync/atomic"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Runner runs statements. Their texts are constants, so that each can be prepared
// once; parameters are ? and ?1. Rows are closed before the next statement.
type Runner interface {
	Exec(text string, args ...any) (sql.Result, error)
	Row(text string, args ...any) Scanner
	Query(text string, args ...any) (*sql.Rows, error)
}

// DB is a database.
type DB interface {
	// Write runs f in a transaction and returns after its COMMIT, or with f's error, and then
	// nothing of it is left. f may run again after a run that left nothing: it sets
	// whatever it answers anew each time. op names it in an error.
	Write(ctx context.Context, op string, f func(Runner) error) error
	// Read runs f in a transaction whose queries all see the same state.
	Read(ctx context.Context, op string, f func(Runner) error) error
	// Row runs a query of one row by itself. Its errors are the caller's to Wrap.
	Row(ctx context.Context, text string, args ...any) Scanner
	// Wrap makes a domain error of what the database said. Errors of the domain and of the
	// context pass, and nil does.
	Wrap(op string, err error) error
}

// Options of New.
type Options struct {
	Secret [32]byte  // seals keys; the same for ever for one database
	Random io.Reader // nil: crypto/rand
}

// Store is the domain in a database. Its methods may be called concurrently.
type Store struct {
	db DB
	*shared
}

// shared is what a store and one inside a transaction of its have in common.
type shared struct {
	dialect Dialect
	texts   texts
	seal    sealer

	generation atomic.Int64 // that this process knows of

	eventsMu sync.Mutex
	events   map[string]int // of a device since its bounds were looked at
}

var (
	_ fleet.Releases    = (*Store)(nil)
	_ fleet.Catalogue   = (*Store)(nil)
	_ fleet.Devices     = (*Store)(nil)
	_ fleet.Orders      = (*Store)(nil)
	_ fleet.Deployments = (*Store)(nil)
	_ fleet.Log         = (*Store)(nil)
	_ fleet.Tokens      = (*Store)(nil)

	_ fleet.KeyLists        = (*Store)(nil)
	_ fleet.SignedReleases  = (*Store)(nil)
	_ fleet.SignedIntake    = (*Store)(nil)
	_ fleet.Policies        = (*Store)(nil)
	_ fleet.NativeDevices   = (*Store)(nil)
	_ fleet.NativeKeyring   = (*Store)(nil)
	_ fleet.NativeCatalogue = (*Store)(nil)
	_ fleet.EnrolTokens     = (*Store)(nil)
	_ fleet.Enroller        = (*Store)(nil)
)

// New makes a store of a database whose tables are there. Start comes before use.
func New(db DB, d Dialect, o Options) (*Store, error) {
	if o.Random == nil {
		o.Random = rand.Reader
	}
	seal, err := newSealer(o.Secret, o.Random)
	if err != nil {
		return nil, err
	}
	return &Store{db: db, shared: &shared{dialect: d, texts: newTexts(&d), seal: seal, events: map[string]int{}}}, nil
}

// Start refuses a secret that is not the database's with CodeInvalid, and reads what
// is kept in memory.
func (s *Store) Start(ctx context.Context) error {
	if err := s.checkSecret(ctx); err != nil {
		return err
	}
	var generation int64
	if err := s.db.Row(ctx, "SELECT generation FROM catalogue").Scan(&generation); err != nil {
		return err
	}
	s.generation.Store(generation)
	return nil
}

// tx is a transaction that writes.
type tx struct {
	Runner
	s          *Store
	generation int64 // of the catalogue, where this changed it
}

// write runs f in a transaction that changes what an operator changes: no other
// such runs meanwhile.
func (s *Store) write(ctx context.Context, f func(*tx) error) error {
	return s.writeAlone(ctx, func(t *tx) error {
		if err := t.lock(s.dialect.LockCatalogue); err != nil {
			return err
		}
		return f(t)
	})
}

// writeAlone runs f in a transaction that is kept apart from others by the rows that
// it changes, or locks, first.
func (s *Store) writeAlone(ctx context.Context, f func(*tx) error) error {
	var t *tx
	err := s.db.Write(ctx, "write", func(r Runner) error {
		t = &tx{Runner: r, s: s}
		return f(t)
	})
	if err == nil && t.generation != 0 {
		// Before the caller is answered: polls that begin after that see the change.
		s.sawGeneration(t.generation)
	}
	return err
}

func (s *Store) sawGeneration(g int64) {
	for {
		have := s.generation.Load()
		if have >= g || s.generation.CompareAndSwap(have, g) {
			return
		}
	}
}

// lock is a statement whose result does not matter.
func (t *tx) lock(text string, args ...any) error {
	if text == "" {
		return nil
	}
	_, err := t.Exec(text, args...)
	return err
}

func (t *tx) lockDevice(id string) error { return t.lock(t.s.dialect.LockDevice, id) }

func (t *tx) lockRollout(id int64) error { return t.lock(t.s.dialect.LockRollout, id) }

// deviceToChange reads a device that nobody else changes until the COMMIT; without an
// assurance by its product's key.
func (t *tx) deviceToChange(id string) (fleet.Device, error) {
	return scanDevice(t.Row("SELECT "+deviceColumns+" FROM devices d WHERE d.id = ?"+t.s.dialect.ForUpdate, id))
}
