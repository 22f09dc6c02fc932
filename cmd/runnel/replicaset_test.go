package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/runnel-fota/runnel/internal/store/postgres"
	"github.com/runnel-fota/runnel/internal/store/postgres/pgtest"
)

// replicaSet is some servers on one database, each behind a cable of its own, and a
// balancer before them that gives every request to the next.
type replicaSet struct {
	t        *testing.T
	bin, dir string
	bucket   string // where images and streams are; "": in a folder
	pg       *pgtest.Server
	database string
	front    *httptest.Server

	mu    sync.Mutex
	each  []*replica
	next  int
	token string
	// answered, if not nil, is told of each answer that server i gives to who asked the balancer.
	answered func(i int, res *http.Response) error
	log      io.Writer
}

// replica is one of the servers. The set's lock guards it.
type replica struct {
	cable *cable
	cmd   *exec.Cmd
	url   *url.URL // nil: it does not run
}

func newReplicaSet(t *testing.T, n int, log io.Writer, bucket string) *replicaSet {
	t.Helper()
	bin, err := exec.LookPath("runnel")
	if err != nil {
		t.Fatal(err)
	}
	s := &replicaSet{t: t, bin: bin, dir: t.TempDir(), bucket: bucket, pg: pgtest.Start(t, false), log: log}
	s.database = s.pg.Database(t)
	for range n {
		s.each = append(s.each, &replica{cable: newCable(t, s.pg.Address())})
	}
	s.front = httptest.NewServer(s)
	t.Cleanup(s.front.Close)
	t.Cleanup(func() {
		for i := range s.each {
			_ = s.end(i, syscall.SIGKILL) // it may have ended
		}
	})
	// At once: one of them makes the tables, the secret and the token.
	var wg sync.WaitGroup
	for i := range s.each {
		wg.Go(func() {
			if err := s.start(i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() || s.token == "" {
		t.Fatalf("%d servers did not start", n)
	}
	if made := s.pg.Count(t, s.database, "SELECT count(*) FROM tokens"); made != 1 {
		t.Errorf("servers that started at once made %d tokens", made)
	}
	return s
}

// start starts server i and waits for its first line.
func (s *replicaSet) start(i int) error {
	r := s.each[i]
	args := []string{"serve", "--json", "--listen", "127.0.0.1:0", "--secret-file", s.secretFile()}
	if s.bucket != "" {
		args = append(args, "--blobs", s.bucket, "--blob-cache", s.cache(i))
	} else {
		args = append(args, "--blobs", filepath.Join(s.dir, "blobs"))
	}
	cmd := exec.Command(s.bin, args...)
	cmd.Env = append(os.Environ(), databaseEnv+"="+s.pg.URLAt(r.cable.address(), s.database))
	cmd.Stderr = s.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var first struct {
		URL   string `json:"url"`
		Token string `json:"admin_token"`
	}
	if err == nil {
		err = json.Unmarshal(line, &first)
	}
	u, perr := url.Parse(first.URL)
	if err = errors.Join(err, perr); err != nil {
		_ = cmd.Process.Kill() // it may have ended; why it did not start is what is told
		_ = cmd.Wait()         // says that it was killed
		return fmt.Errorf("server %d: %w", i, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.cmd, r.url = cmd, u
	if first.Token != "" {
		s.token = first.Token
	}
	return nil
}

func (s *replicaSet) secretFile() string { return filepath.Join(s.dir, "secret.key") }

// cache is where server i has its copies of what is in the bucket.
func (s *replicaSet) cache(i int) string { return filepath.Join(s.dir, fmt.Sprint("cache-", i)) }

// at is server i's URL.
func (s *replicaSet) at(i int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.each[i%len(s.each)].url.String()
}

// end ends server i, and returns once it has ended.
func (s *replicaSet) end(i int, sig syscall.Signal) error {
	s.mu.Lock()
	r := s.each[i]
	cmd := r.cmd
	r.cmd, r.url = nil, nil
	s.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(sig); err != nil {
		return err
	}
	return cmd.Wait()
}

// ServeHTTP is the balancer: who asks again comes to another server. It knows which run,
// as one that asks for their health does, and not which have lost the database.
func (s *replicaSet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var to *url.URL
	var which int
	s.mu.Lock()
	for range s.each {
		s.next++
		which = s.next % len(s.each)
		if to = s.each[which].url; to != nil {
			break
		}
	}
	answered := s.answered
	s.mu.Unlock()
	unavailable := func() {
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, `{"status":503,"code":"busy","detail":"no server answers"}`)
	}
	if to == nil {
		unavailable()
		return
	}
	p := httputil.NewSingleHostReverseProxy(to)
	p.ErrorLog = nil
	p.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { unavailable() }
	if answered != nil {
		p.ModifyResponse = func(res *http.Response) error { return answered(which, res) }
	}
	p.ServeHTTP(w, r)
}

// store opens the database past the servers.
func (s *replicaSet) store(ctx context.Context) *postgres.Store {
	s.t.Helper()
	secret, err := databaseSecret(ctx, s.pg.URL(s.database), s.secretFile())
	if err != nil {
		s.t.Fatal(err)
	}
	store, err := postgres.Open(ctx, postgres.Options{URL: s.pg.URL(s.database), Secret: secret})
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

// cable carries connections to an address until it is cut: then nothing comes through, and
// nobody is told. Mended, it ends what hung in it.
type cable struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	whole chan struct{} // closed: it carries
	open  map[net.Conn]bool
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{l: l, to: to, whole: make(chan struct{}), open: map[net.Conn]bool{}}
	close(c.whole)
	go c.accept()
	t.Cleanup(func() {
		l.Close()
		c.drop()
	})
	return c
}

func (c *cable) address() string { return c.l.Addr().String() }

func (c *cable) accept() {
	for {
		from, err := c.l.Accept()
		if err != nil {
			return
		}
		c.keep(from)
		go func() {
			<-c.carries()
			to, err := net.Dial("tcp", c.to)
			if err != nil {
				from.Close()
				return
			}
			c.keep(to)
			go c.copy(to, from)
			c.copy(from, to)
		}()
	}
}

func (c *cable) keep(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn] = true
}

func (c *cable) carries() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.whole
}

func (c *cable) copy(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		<-c.carries()
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = make(chan struct{})
}

func (c *cable) mend() {
	c.drop()
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.whole)
}

func (c *cable) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
		delete(c.open, conn)
	}
}
