package postgres

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

const (
	// patience is how long a statement or a transaction may take, with waiting for a connection: less
	// than devices and load balancers wait.
	patience = 10 * time.Second
	// longPatience is for what reads a whole fleet.
	longPatience = 10 * time.Minute
	// tries of a transaction that met another one.
	tries = 6
)

// limit is how long what is called op may take.
func limit(op string) time.Duration {
	switch op {
	case "step", "census", "count", "devices", "deployments", "check", "copy": // may look at every device or deployment
		return longPatience
	}
	return patience
}

// database is the store, as the statements see it.
type database struct{ *Store }

// Write runs f in a transaction. One that met another in a way that the database ends
// runs again, and so does one whose connection was found dead before anything was sent.
func (d database) Write(ctx context.Context, op string, f func(sqlstore.Runner) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit(op))
	defer cancel()
	var err error
	for try := range tries {
		if err = d.write(ctx, f); !metAnother(err) {
			break
		}
		// Those that met each other don't meet again.
		select {
		case <-time.After(time.Duration(1+rand.IntN(8<<try)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return wrap(op, err)
}

func (d database) write(ctx context.Context, f func(sqlstore.Runner) error) error {
	t, err := d.durable.sql.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	if err := f(runner{ctx, t, d.Store}); err != nil {
		// Nothing is left of it either way: a connection that can't say so is closed.
		return errors.Join(err, ignoreDone(t.Rollback()))
	}
	return t.Commit()
}

// ignoreDone: where the context ended, the transaction did.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

func (d database) Read(ctx context.Context, op string, f func(sqlstore.Runner) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit(op))
	defer cancel()
	t, err := d.light.sql.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return wrap(op, err)
	}
	err = f(runner{ctx, t, d.Store})
	_ = t.Rollback() // there is nothing to lose
	return wrap(op, err)
}

func (d database) Row(ctx context.Context, text string, args ...any) sqlstore.Scanner {
	ctx, cancel := context.WithTimeout(ctx, patience)
	d.ran.Add(1)
	return row{d.light.sql.QueryRowContext(ctx, numbered(text, args), args...), cancel}
}

func (d database) Wrap(op string, err error) error { return wrap(op, err) }

// row gives back its context when it was read.
type row struct {
	*sql.Row
	cancel context.CancelFunc
}

func (r row) Scan(to ...any) error {
	defer r.cancel()
	return r.Row.Scan(to...)
}

// runner runs the statements of one transaction.
type runner struct {
	ctx context.Context // of the one call that the transaction is for
	t   *sql.Tx
	s   *Store
}

func (r runner) Exec(text string, args ...any) (sql.Result, error) {
	r.s.ran.Add(1)
	return r.t.ExecContext(r.ctx, numbered(text, args), args...)
}

func (r runner) Row(text string, args ...any) sqlstore.Scanner {
	r.s.ran.Add(1)
	return r.t.QueryRowContext(r.ctx, numbered(text, args), args...)
}

func (r runner) Query(text string, args ...any) (*sql.Rows, error) {
	r.s.ran.Add(1)
	return r.t.QueryContext(r.ctx, numbered(text, args), args...)
}

var texts sync.Map // of statements as they are written, to PostgreSQL's

// numbered turns the parameters ? and ?1 into $1 with a type: PostgreSQL would guess one
// from the first place where a parameter stands, and a number beside a literal would be a
// small one. A statement has parameters of the same types each time, and no ? in a text.
func numbered(text string, args []any) string {
	if t, ok := texts.Load(text); ok {
		return t.(string)
	}
	var b strings.Builder
	next := 1
	rest := text
	for {
		i := strings.IndexByte(rest, '?')
		if i < 0 {
			break
		}
		b.WriteString(rest[:i])
		rest = rest[i+1:]
		digits := 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			digits++
		}
		n := next
		if digits > 0 {
			n, _ = strconv.Atoi(rest[:digits]) // digits alone
			rest = rest[digits:]
		}
		next = max(next, n+1)
		b.WriteString("$" + strconv.Itoa(n))
		if n <= len(args) {
			b.WriteString(typeOf(args[n-1]))
		}
	}
	b.WriteString(rest)
	made := b.String()
	texts.Store(text, made)
	return made
}

// typeOf is the cast of a parameter. Where a column has fewer bits the database checks them.
func typeOf(v any) string {
	switch v.(type) {
	case []byte:
		return "::bytea"
	case float64:
		return "::double precision"
	case string:
		return "::text"
	case int, int64, uint8, uint16, uint32, int32:
		return "::bigint"
	}
	return ""
}
