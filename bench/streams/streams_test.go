// Package streams measures how fast the server hands out streams on this
// machine's loopback, beside a plain copy of the same bytes over the same kind of
// connection in the same run, and nginx where it is installed. It is for
// bench/streams.sh; it has no part in the program.
package streams

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/httpserver"
	"github.com/runnel-fota/runnel/internal/wire/native"
)

// fileBytes is a stream of an image of 1 MiB in chunks of 1,024.
const fileBytes = 1<<20 + 1023*32

// index says that everything is a stream.
type index struct{ *dir.Dir }

func (index) Stream(_ context.Context, d fleet.Digest) (fleet.Stream, error) {
	return fleet.Stream{Digest: d, Length: fileBytes}, nil
}

func (index) Manifest(context.Context, fleet.Digest) (fleet.Manifest, error) {
	return fleet.Manifest{}, fleet.Errorf(fleet.CodeNotFound, "none")
}

// content is a stream's file in a folder of blobs.
func content(b *testing.B) (blobs *dir.Dir, d fleet.Digest, path string) {
	b.Helper()
	root := b.TempDir()
	blobs, err := dir.Open(dir.Options{Path: root, Reserve: -1})
	if err != nil {
		b.Fatal(err)
	}
	d, _, err = blobs.Put(b.Context(), bytes.NewReader(make([]byte, fileBytes)), fileBytes)
	if err != nil {
		b.Fatal(err)
	}
	return blobs, d, filepath.Join(root, d.String())
}

// listen serves with f until the benchmark ends, and answers the address.
func listen(b *testing.B, f func(net.Listener) error) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = f(l) }()
	b.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// runnel is the server's own chain: listener, bounds, routes, file.
func runnel(b *testing.B, sendBuffer int) (addr, path string) {
	blobs, d, _ := content(b)
	mux := http.NewServeMux()
	native.NewObjects(native.ObjectsConfig{Files: blobs, Index: index{blobs}}).Register(mux)
	s := httpserver.New(mux, 0, slog.New(slog.DiscardHandler))
	s.SetSendBuffer(sendBuffer)
	ctx, stop := context.WithCancel(context.Background())
	addr = listen(b, func(l net.Listener) error { return s.Serve(ctx, l, nil) })
	b.Cleanup(stop)
	return addr, "/r1/streams/" + d.String()
}

// downloads are clients that fetch path over kept connections. They speak just
// enough HTTP: what is measured is the server.
func downloads(b *testing.B, addr, path string, clients int) {
	b.Helper()
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
	conns := make([]net.Conn, clients)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		conns[i] = c
		defer c.Close()
	}
	var left sync.WaitGroup
	work := make(chan struct{}, b.N)
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	b.SetBytes(fileBytes)
	b.ReportAllocs()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ResetTimer()
	for _, c := range conns {
		left.Go(func() {
			buf := make([]byte, 256<<10)
			for range work {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				if err := body(c, buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	left.Wait()
	b.StopTimer()
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := seconds(after.Utime) + seconds(after.Stime) - seconds(before.Utime) - seconds(before.Stime)
	b.ReportMetric(cpu/(float64(b.N)*fileBytes/1e9), "cpu-s/GB")
}

func seconds(t syscall.Timeval) float64 { return time.Duration(t.Nano()).Seconds() }

// body reads one answer of fileBytes and drops it.
func body(c net.Conn, buf []byte) error {
	n, head := 0, -1
	for head < 0 {
		m, err := c.Read(buf[n:])
		if err != nil {
			return err
		}
		n += m
		head = bytes.Index(buf[:n], []byte("\r\n\r\n"))
	}
	if !bytes.HasPrefix(buf, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("%.60s", buf)
	}
	for left := fileBytes - (n - head - 4); left > 0; {
		m, err := c.Read(buf[:min(left, len(buf))])
		if err != nil {
			return err
		}
		left -= m
	}
	return nil
}

// plainCopy answers with the same bytes from memory, write by write: no file, no
// sendfile, no HTTP server.
func plainCopy(l net.Listener) error {
	head := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", fileBytes)
	b := make([]byte, 256<<10)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			in := make([]byte, 4096)
			for {
				if _, err := c.Read(in); err != nil {
					return
				}
				if _, err := c.Write(head); err != nil {
					return
				}
				for left := fileBytes; left > 0; {
					n, err := c.Write(b[:min(left, len(b))])
					if err != nil {
						return
					}
					left -= n
				}
			}
		}()
	}
}

const clients = 8

func BenchmarkCopy(b *testing.B) { downloads(b, listen(b, plainCopy), "/", clients) }

func BenchmarkRunnel(b *testing.B) {
	addr, path := runnel(b, httpserver.DefaultSendBuffer)
	downloads(b, addr, path, clients)
}

func BenchmarkRunnelSystemBuffer(b *testing.B) {
	addr, path := runnel(b, 0)
	downloads(b, addr, path, clients)
}

// BenchmarkServeContent is the least that Go can do: what the bounds and the
// index cost is the difference to BenchmarkRunnelSystemBuffer.
func BenchmarkServeContent(b *testing.B) {
	_, _, path := content(b)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(path)
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	})}
	b.Cleanup(func() { s.Close() })
	downloads(b, listen(b, s.Serve), "/", clients)
}

// BenchmarkNginx is nginx with sendfile and as many workers as processors.
func BenchmarkNginx(b *testing.B) {
	bin, err := exec.LookPath("nginx")
	if err != nil {
		b.Skip("nginx is not installed: there is no figure beside it")
	}
	_, d, path := content(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	root := b.TempDir()
	conf := filepath.Join(root, "nginx.conf")
	text := fmt.Sprintf("worker_processes %d;\npid %s/pid;\nerror_log stderr;\ndaemon off;\nevents { worker_connections 1024; }\n"+
		"http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; server { listen %s; root %s; } }\n",
		runtime.NumCPU(), root, addr, filepath.Dir(path))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(bin, "-p", root, "-c", conf, "-g", "user "+user()+";")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			b.Fatal("nginx does not answer")
		}
		runtime.Gosched()
	}
	// CPU is that of this process alone: the client's half.
	downloads(b, addr, "/"+d.String(), clients)
}

func user() string {
	out, err := exec.Command("id", "-un").Output()
	if err != nil {
		return "root"
	}
	return strings.TrimSpace(string(out))
}
