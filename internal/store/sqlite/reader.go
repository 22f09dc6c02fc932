package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

// reader is the pool of connections that read. The texts of its statements are
// constants of this package; each is prepared once, and by database/sql once a
// connection.
//
// Preparing takes a connection from the pool. Nobody may do that while holding
// one, or the lock: as many readers as there are connections, each waiting for
// one more, would wait for ever.
type reader struct {
	db    *sql.DB
	lanes *lanes
	mu    sync.RWMutex
	stmts map[string]*sql.Stmt

	ran atomic.Int64 // statements
}

// newReader reads by n connections of db.
func newReader(db *sql.DB, n int) *reader {
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return &reader{db: db, lanes: newLanes(n), stmts: map[string]*sql.Stmt{}}
}

func (r *reader) known(text string) *sql.Stmt {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.stmts[text]
}

// prepare is called without a connection in hand.
func (r *reader) prepare(ctx context.Context, text string) (*sql.Stmt, error) {
	if s := r.known(text); s != nil {
		return s, nil
	}
	s, err := r.db.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if first := r.stmts[text]; first != nil {
		s.Close() // somebody was faster
		return first, nil
	}
	r.stmts[text] = s
	return s, nil
}

// row runs a query of one row by itself, when it is scanned.
func (r *reader) row(ctx context.Context, text string, args ...any) sqlstore.Scanner {
	return &lateRow{r, ctx, text, args}
}

// lateRow is a query that has yet to run.
type lateRow struct {
	r    *reader
	ctx  context.Context // of the call that the row is for
	text string
	args []any
}

func (l *lateRow) Scan(to ...any) error {
	var err error
	if e := l.r.lanes.do(l.ctx, func() { err = l.scan(to) }); e != nil {
		return e
	}
	return err
}

func (l *lateRow) scan(to []any) error {
	s, err := l.r.prepare(l.ctx, l.text)
	if err != nil {
		return err
	}
	l.r.ran.Add(1)
	return s.QueryRowContext(l.ctx, l.args...).Scan(to...)
}

func (r *reader) close() error {
	r.lanes.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, s := range r.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, r.db.Close())...)
}

// view is a transaction that reads: all its queries see the same state.
type view struct {
	r   *reader
	t   *sql.Tx
	ctx context.Context // of the one call that the view is for
	new []string        // texts to prepare when the view is over
}

// Exec is refused: a view changes nothing.
func (v *view) Exec(string, ...any) (sql.Result, error) {
	return nil, errors.New("a view changes nothing")
}

// Query runs a query; its rows are closed before the next one.
func (v *view) Query(text string, args ...any) (*sql.Rows, error) {
	v.r.ran.Add(1)
	if s := v.r.known(text); s != nil {
		return v.t.StmtContext(v.ctx, s).QueryContext(v.ctx, args...)
	}
	v.new = append(v.new, text)
	return v.t.QueryContext(v.ctx, text, args...)
}

// Row runs a query of one row.
func (v *view) Row(text string, args ...any) sqlstore.Scanner {
	v.r.ran.Add(1)
	if s := v.r.known(text); s != nil {
		return v.t.StmtContext(v.ctx, s).QueryRowContext(v.ctx, args...)
	}
	v.new = append(v.new, text)
	return v.t.QueryRowContext(v.ctx, text, args...)
}

// read runs f in a view, in a lane: f calls nothing of the store but the view.
func (s *Store) read(ctx context.Context, op string, f func(*view) error) error {
	var err error
	if e := s.readers.lanes.do(ctx, func() { err = s.readers.view(ctx, f) }); e != nil {
		err = e
	}
	return wrap(op, err)
}

func (r *reader) view(ctx context.Context, f func(*view) error) error {
	t, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	v := &view{r: r, t: t, ctx: ctx}
	err = f(v)
	_ = t.Rollback() // there is nothing to lose
	for _, text := range v.new {
		if _, e := r.prepare(ctx, text); e != nil && err == nil {
			err = e
		}
	}
	return err
}
