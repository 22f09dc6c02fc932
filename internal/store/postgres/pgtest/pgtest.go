// Package pgtest starts a PostgreSQL server of a test's own: a new cluster in a
// temporary folder, on loopback, at a port that the system chose.
package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/runnel-fota/runnel/internal/testenv"
)

const (
	owner = "runnel"
	// patience is how long a server may take to start or to stop.
	patience = 30 * time.Second
)

// Server is a PostgreSQL server. Its methods are for one goroutine.
type Server struct {
	// Password is its only user's, for tests that look where it went.
	Password string

	bin, dir string
	port     int
	proc     *process
	made     atomic.Int64
}

// Start makes and starts a server that ends with the test. Data is not flushed to the
// disk unless durable: a killed server keeps it, a power loss would not.
func Start(t testing.TB, durable bool) *Server {
	t.Helper()
	s, err := New(durable)
	if errors.Is(err, errNone) {
		testenv.Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// New is Start for who has no test yet: Close comes at the end.
func New(durable bool) (_ *Server, err error) {
	s := &Server{Password: rand.Text()}
	if s.bin, err = find(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "runnel-pg-"); err != nil {
		return nil, err
	}
	if err := s.make(durable); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	// The port is given free before the server takes it: somebody else may be faster.
	for range 5 {
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = s.start(); err == nil {
			return s, nil
		}
	}
	return nil, errors.Join(err, s.Close())
}

// Close stops the server and removes what it wrote.
func (s *Server) Close() error { return errors.Join(s.stop(os.Interrupt), os.RemoveAll(s.dir)) }

func (s *Server) make(durable bool) error {
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(s.Password+"\n"), 0o600); err != nil {
		return err
	}
	if err := give(s.dir, secret); err != nil {
		return err
	}
	out, err := run(exec.Command(filepath.Join(s.bin, "initdb"), "--no-sync", "--auth=scram-sha-256", "--username="+owner, "--pwfile="+secret,
		"--encoding=UTF8", "--locale=C", "-D", s.data()))
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	conf := "unix_socket_directories = ''\nlisten_addresses = '127.0.0.1'\nmax_connections = 200\nlog_min_messages = fatal\n"
	if !durable {
		conf += "fsync = off\nfull_page_writes = off\n"
	}
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(conf)
	return errors.Join(err, f.Close())
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// errNone is for machines without PostgreSQL.
var errNone = errors.New("PostgreSQL's server not found: install postgresql")

// find is the folder of the newest server's programs.
func find() (string, error) {
	// Debian's packages leave them off the PATH.
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is right
	slices.Sort(dirs)
	for _, d := range slices.Backward(dirs) {
		if _, err := os.Stat(filepath.Join(d, "initdb")); err == nil {
			return d, nil
		}
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errNone
	}
	path, err = filepath.EvalSymlinks(path)
	return filepath.Dir(path), err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) start() error {
	p, err := launch(exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-p", fmt.Sprint(s.port)))
	if err != nil {
		return err
	}
	s.proc = p
	db, err := sql.Open("pgx", s.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	deadline := time.Now().Add(patience)
	for {
		err := db.Ping()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			s.proc = nil
			return fmt.Errorf("postgres ended: %v\n%s", p.err, p.said.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// Kill ends the server as a crash would.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.stop(immediate); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) stop(how os.Signal) error {
	if s.proc == nil {
		return nil
	}
	defer func() { s.proc = nil }()
	if err := s.proc.cmd.Process.Signal(how); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	select {
	case <-s.proc.done:
		return nil
	case <-time.After(patience):
	}
	err := s.proc.cmd.Process.Kill()
	<-s.proc.done
	return errors.Join(errors.New("postgres does not stop"), err)
}

// Restart starts the server again after a Kill, at the same port.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// URL is a database's on this server.
func (s *Server) URL(database string) string { return s.URLAt(s.Address(), database) }

// URLAt is the same by way of another address, a proxy's.
func (s *Server) URLAt(address, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(owner, s.Password), Host: address, Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Address is where the server listens.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Database makes a new, empty database and answers its name.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.made.Add(1))
	s.Exec(t, "postgres", "CREATE DATABASE "+name+" TEMPLATE template0")
	return name
}

// Schema makes a new, empty schema and answers the URL by which it is what Database
// is, for less time.
func (s *Server) Schema(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.made.Add(1))
	s.Exec(t, "postgres", "CREATE SCHEMA "+name)
	return s.URL("postgres") + "&search_path=" + name
}

// Exec runs a statement in a database, past everything else.
func (s *Server) Exec(t testing.TB, database, statement string) {
	t.Helper()
	db, err := sql.Open("pgx", s.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// Count answers a query of one number.
func (s *Server) Count(t testing.TB, database, query string, args ...any) (n int64) {
	t.Helper()
	db, err := sql.Open("pgx", s.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := db.QueryRowContext(ctx, query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// process is a running server.
type process struct {
	cmd  *exec.Cmd
	said bytes.Buffer
	done chan struct{} // closed once err is set
	err  error
}

func run(cmd *exec.Cmd) ([]byte, error) {
	as(cmd)
	cmd.Dir = "/"
	return cmd.CombinedOutput()
}
