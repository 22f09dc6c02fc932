// Package postgres keeps the domain in PostgreSQL, for any number of servers at
// once: connections, tables and transactions. The statements are
// internal/store/sqlstore's.
//
// Writes run in READ COMMITTED transactions and lock first what they judge by: the
// device's row, the rollout's, or for what an operator changes one lock for all of it
// (sqlstore.Dialect). Reports, pushes and orders are on the database's disk when they
// are answered. What an idle poll teaches is not waited for: a crash of the database
// may forget its last second, as SQLite's server forgets that when it is killed.
package postgres

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

const (
	// oldest is the oldest server that is tried: 13.0, as server_version_num.
	oldest = 130_000
	// defaultConns of each of the two pools: three servers stay below the hundred that a server takes
	// as it is installed. pool_max_conns in the URL says otherwise.
	defaultConns   = 12
	connectTimeout = 5 * time.Second
)

// Options of Open.
type Options struct {
	// URL is postgres://user@host:port/database?parameter=value, with what libpq and pgxpool know.
	URL    string
	Secret [32]byte // seals keys; the same for ever for one database, and for all its servers
	Random io.Reader
	// Migrating is told before tables of an older program are brought up to date, which takes seconds
	// with a large fleet: from which schema, and to which. nil: nobody is.
	Migrating func(from, to int64)
}

// Store is an open database. Its methods may be called concurrently.
type Store struct {
	*sqlstore.Store
	durable, light pool
	exposed        bool

	ran atomic.Int64
}

// Exposed says whether what goes to the database and back may be read or altered on the way:
// it is on another machine, and the URL does not ask for TLS that names it (sslmode=verify-full).
func (s *Store) Exposed() bool { return s.exposed }

// pool is some connections of one kind.
type pool struct {
	pgx *pgxpool.Pool
	sql *sql.DB
}

func (p pool) close() error {
	if p.pgx == nil {
		return nil
	}
	err := p.sql.Close()
	p.pgx.Close()
	return err
}

// Open connects, and makes the tables or brings them up to date. A database of a
// newer program, of another one, and one whose keys were sealed under another secret are
// refused with CodeInvalid.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	c, err := config(o.URL)
	if err != nil {
		return nil, err
	}
	s := &Store{exposed: exposed(c)}
	defer func() {
		if err != nil {
			err = errors.Join(openError(c, err), s.Close())
			return
		}
	}()
	if s.durable, err = newPool(ctx, c); err != nil {
		return nil, err
	}
	light := c.Copy()
	light.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
	if s.light, err = newPool(ctx, light); err != nil {
		return nil, err
	}
	if s.Store, err = sqlstore.New(database{s}, dialect, sqlstore.Options{Secret: o.Secret, Random: o.Random}); err != nil {
		return nil, err
	}
	// Of servers that start at once one makes the tables and seals the secret.
	err = alone(ctx, s.light.sql, func() error {
		if err := s.identify(ctx); err != nil {
			return err
		}
		if err := migrate(ctx, s.durable.sql, name(c), o.Migrating); err != nil {
			return err
		}
		return s.Start(ctx)
	})
	return s, err
}

// Starting runs f while no other server of the database starts.
func (s *Store) Starting(ctx context.Context, f func() error) error {
	err := alone(ctx, s.light.sql, f)
	return wrap("start", err)
}

// alone runs f while no other server runs its own; migrations of a large fleet take their time.
func alone(ctx context.Context, db *sql.DB, f func() error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "SET lock_timeout = '10min'"); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock(1381322316, 3)"); err != nil {
		return err
	}
	err = f()
	ctx = context.WithoutCancel(ctx)
	_, unlock := conn.ExecContext(ctx, "SELECT pg_advisory_unlock(1381322316, 3)")
	_, reset := conn.ExecContext(ctx, "RESET lock_timeout")
	return errors.Join(err, unlock, reset)
}

// Sealed says whether a secret was ever used with the database.
func Sealed(ctx context.Context, url string) (sealed bool, err error) {
	c, err := config(url)
	if err != nil {
		return false, err
	}
	p, err := newPool(ctx, c)
	if err != nil {
		return false, openError(c, err)
	}
	defer p.close()
	if err = p.sql.QueryRowContext(ctx, "SELECT to_regclass('seal') IS NOT NULL").Scan(&sealed); err == nil && sealed {
		err = p.sql.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM seal)").Scan(&sealed)
	}
	if err != nil {
		return false, openError(c, err)
	}
	return sealed, nil
}

// Close gives the connections back.
func (s *Store) Close() error { return errors.Join(s.light.close(), s.durable.close()) }

// Statements is how many statements have run, without BEGIN and COMMIT: for tests and figures.
func (s *Store) Statements() int64 { return s.ran.Load() }

// config reads the URL. No error holds its password.
func config(url string) (*pgxpool.Config, error) {
	if !IsURL(url) {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "the database is no postgres:// URL", Hint: "write it like postgres://runnel@db.example.com/runnel"}
	}
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		// What pgx says may repeat what stands where the password is not looked for.
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "the database's URL can't be read",
			Hint: "write it like postgres://runnel@db.example.com:5432/runnel?sslmode=verify-full, with % before what is no letter or digit in a password"}
	}
	if !strings.Contains(url, "pool_max_conns=") {
		c.MaxConns = defaultConns
	}
	if c.ConnConfig.ConnectTimeout == 0 || c.ConnConfig.ConnectTimeout > time.Minute {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	for name, value := range map[string]string{
		"application_name": "runnel",
		// A server that vanished in a transaction holds locks no longer than that.
		"idle_in_transaction_session_timeout": "15s",
		"lock_timeout":                        "8s",
		"tcp_keepalives_idle":                 "10",
		"tcp_keepalives_interval":             "5",
		"tcp_keepalives_count":                "3",
	} {
		if _, said := c.ConnConfig.RuntimeParams[name]; !said {
			c.ConnConfig.RuntimeParams[name] = value
		}
	}
	return c, nil
}

// IsURL says whether text names a PostgreSQL database.
func IsURL(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

func exposed(c *pgxpool.Config) bool {
	open := func(host string, t *tls.Config) bool {
		ip := net.ParseIP(host)
		here := strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
		return !here && (t == nil || t.InsecureSkipVerify || t.ServerName == "")
	}
	if open(c.ConnConfig.Host, c.ConnConfig.TLSConfig) {
		return true
	}
	return slices.ContainsFunc(c.ConnConfig.Fallbacks, func(f *pgconn.FallbackConfig) bool { return open(f.Host, f.TLSConfig) })
}

// name is what people know the database by.
func name(c *pgxpool.Config) string {
	return fmt.Sprintf("database %s on %s", c.ConnConfig.Database, c.ConnConfig.Host)
}

func newPool(ctx context.Context, c *pgxpool.Config) (pool, error) {
	p, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return pool{}, err
	}
	return pool{p, stdlib.OpenDBFromPool(p)}, nil
}

// identify refuses servers that are too old, databases that can't hold every text, and
// those of other programs.
func (s *Store) identify(ctx context.Context) error {
	var version int
	var encoding string
	var others int
	var ours bool
	err := s.durable.sql.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), to_regclass('catalogue') IS NOT NULL AND to_regclass('seal') IS NOT NULL,
 (SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema())`).Scan(&version, &encoding, &ours, &others)
	switch {
	case err != nil:
		return err
	case version < oldest:
		return &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("the PostgreSQL server is version %d", version/10_000), Hint: fmt.Sprintf("use version %d or newer", oldest/10_000)}
	case encoding != "UTF8":
		return &fleet.Error{Code: fleet.CodeInvalid, Message: "the database's encoding is " + encoding, Hint: "make it with CREATE DATABASE runnel ENCODING 'UTF8' TEMPLATE template0"}
	case !ours && others > 0:
		return &fleet.Error{Code: fleet.CodeInvalid, Message: "the database has tables of another program", Hint: "make a database of its own for Runnel"}
	}
	return nil
}

// openError is what a database that can't be used is refused with.
func openError(c *pgxpool.Config, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	e := wrap("open", err)
	var f *fleet.Error
	if errors.As(e, &f) && f.Op == "open" {
		made := *f
		made.Code, made.Message = fleet.CodeInvalid, name(c)+": "+f.Message
		if made.Hint == "" || f.Code == fleet.CodeBusy {
			made.Hint = "check that the server runs, and --database: host, port, user and password"
		}
		return &made
	}
	return e
}

// dialect is PostgreSQL's.
var dialect = sqlstore.Dialect{
	IDs: func(p string) string { return "json_array_elements_text(CAST(" + p + " AS json)) j (value)" },
	Rows: func(columns string) string {
		return "CAST(coalesce(json_agg(json_build_array(" + columns + ")), '[]') AS text)"
	},
	JSON: func(column string) string { return "CAST(" + column + " AS json)" },

	ForUpdate:   " FOR NO KEY UPDATE OF d",
	LockDevice:  "SELECT 1 FROM devices WHERE id = ? FOR NO KEY UPDATE",
	LockRollout: "SELECT 1 FROM rollouts WHERE id = ? FOR NO KEY UPDATE",
	// Numbers of advisory locks: "RUNL" and what is locked.
	LockCatalogue: "SELECT pg_advisory_xact_lock(1381322316, 1)",
	TryStep:       "SELECT pg_try_advisory_xact_lock(1381322316, 2)",
	Replicas:      true,
}
