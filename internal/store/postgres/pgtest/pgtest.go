// Package pgtest starts a PostgreSQL server of a test's own: a new cluster in a
// temporary folder, on loopback, at a port that the system chose.
package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
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
	bin := find(t)
	dir, err := os.MkdirTemp("", "runnel-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{bin: bin, dir: dir, Password: rand.Text()}
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(s.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := give(dir, secret); err != nil {
		t.Fatal(err)
	}
	out, err := run(exec.Command(filepath.Join(bin, "initdb"), "--no-sync", "--auth=scram-sha-256", "--username="+owner, "--pwfile="+secret,
		"--encoding=UTF8", "--locale=C", "-D", s.data()))
	if err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	conf := "unix_socket_directories = ''\nlisten_addresses = '127.0.0.1'\nmax_connections = 200\nlog_min_messages = fatal\n"
	if !durable {
		conf += "fsync = off\nfull_page_writes = off\n"
	}
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(conf)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(t, os.Interrupt) })
	// The port is given free before the server takes it: somebody else may be faster.
	for try := 0; ; try++ {
		if s.port, err = freePort(); err != nil {
			t.Fatal(err)
		}
		if err = s.start(); err == nil {
			return s
		}
		if try == 5 {
			t.Fatal(err)
		}
	}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// find is the folder of the newest server's programs.
func find(t testing.TB) string {
	t.Helper()
	// Debian's packages leave them off the PATH.
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is right
	slices.Sort(dirs)
	for _, d := range slices.Backward(dirs) {
		if _, err := os.Stat(filepath.Join(d, "initdb")); err == nil {
			return d
		}
	}
	path := testenv.Tool(t, "initdb")
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(real)
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
	s.stop(t, immediate)
}

func (s *Server) stop(t testing.TB, how os.Signal) {
	t.Helper()
	if s.proc == nil {
		return
	}
	if err := s.proc.cmd.Process.Signal(how); err != nil {
		t.Errorf("postgres: %v", err)
	}
	select {
	case <-s.proc.done:
	case <-time.After(patience):
		t.Errorf("postgres does not stop")
		_ = s.proc.cmd.Process.Kill() // the last word: what it says does not matter
		<-s.proc.done
	}
	s.proc = nil
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
