// Package s3test starts an S3-compatible server for a test: versitygw, on
// loopback, with its files in a folder of the test's. It is for tests only.
package s3test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/testenv"
)

// The server's only user.
const (
	AccessKey = "runnel-test"
	SecretKey = "runnel-test-secret"

	bucketName = "fleet"
	tries      = 5
	startTime  = 30 * time.Second
)

// Server is one that runs, until the test ends.
type Server struct {
	t       testing.TB
	program string
	root    string
	addr    string
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended
	said    *output
}

// Start starts a server with one empty bucket, and sets the credentials in the
// environment. Where versitygw is not here the test skips, or fails in CI.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, program: testenv.VersityGW(t), root: t.TempDir()}
	if err := os.Mkdir(filepath.Join(s.root, bucketName), 0o755); err != nil {
		t.Fatal(err)
	}
	if e, ok := t.(interface{ Setenv(key, value string) }); ok {
		for k, v := range Env() {
			e.Setenv(k, v)
		}
	}
	var why error
	for range tries { // the port is free when it is chosen, and may be another's a moment later
		if why = s.run(""); why == nil {
			t.Cleanup(s.Stop)
			return s
		}
	}
	t.Fatalf("versitygw does not start: %v", why)
	return nil
}

// Env is what a program needs to know to use the server.
func Env() map[string]string {
	return map[string]string{"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey}
}

// URL is that of the bucket, or of a prefix in it.
func (s *Server) URL(prefix string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=http://%s", bucketName, prefix, s.addr)
}

// File is the path of an object's file.
func (s *Server) File(key string) string { return filepath.Join(s.root, bucketName, key) }

// Again starts the server anew after Stop, at the address that it had.
func (s *Server) Again() {
	s.t.Helper()
	if err := s.run(s.addr); err != nil {
		s.t.Fatalf("versitygw does not start again: %v", err)
	}
}

// Stop ends it at once.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.done
		s.cmd = nil
	}
}

func (s *Server) run(addr string) error {
	if addr == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addr = l.Addr().String()
		l.Close()
	}
	s.addr, s.said, s.done = addr, &output{}, make(chan struct{})
	cmd := exec.Command(s.program, "--port", addr, "--quiet", "posix", s.root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	cmd.Stdout, cmd.Stderr = s.said, s.said
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait(); close(s.done) }()
	s.cmd = cmd
	if err := s.ready(); err != nil {
		s.Stop()
		return fmt.Errorf("%w; it says: %s", err, s.said)
	}
	return nil
}

// ready waits until it answers as an S3 server does: 403 to who does not say who he is.
func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/"+bucketName, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusForbidden {
				return nil
			}
			err = fmt.Errorf("status %d", resp.StatusCode)
		}
		select {
		case <-again.C:
		case <-s.done:
			return fmt.Errorf("it ended")
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: %w", startTime, err)
		}
	}
}

// output is what the server printed.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(o.b.String())
}
