// Package httpserver bounds what callers may do to the server: time, header
// sizes, requests at once. It ends cleanly. It knows no route but the one whose
// answers it is told to Keep, and wraps no ResponseWriter.
package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds with their reasons.
const (
	readHeaderTimeout = 10 * time.Second // a board on a bad radio link sends 500 bytes in that
	readTimeout       = 30 * time.Second // small bodies; uploads move it
	writeTimeout      = 60 * time.Second // a chunk of 22 KiB at 400 bytes/s
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 16 << 10
	drain             = 10 * time.Second // for requests in progress when the server stops
	// DefaultMaxRequests at once: each has a goroutine and a few buffers, some 30 KiB.
	DefaultMaxRequests = 2048
	// DefaultSendBuffer is what the system may hold of an answer on its way, in bytes. Left to
	// itself Linux lets that grow to megabytes, which leave the processor's caches before they
	// are sent: downloads on one machine are half as fast again with this (bench/README.md). It
	// carries 10 Mbit/s over a round trip of 100 ms, which is more than a device takes.
	DefaultSendBuffer = 128 << 10
)

// Server serves a mux on a listener.
type Server struct {
	http   *http.Server
	keeper *keeper
}

// New makes a server; maxRequests 0 takes the default.
func New(mux *http.ServeMux, maxRequests int, log *slog.Logger) *Server {
	if maxRequests <= 0 {
		maxRequests = DefaultMaxRequests
	}
	mux.HandleFunc("/", notFound(mux))
	k := newKeeper(limit(mux, maxRequests), log)
	return &Server{keeper: k, http: &http.Server{
		Handler:           k,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// SetSendBuffer sets how much of an answer the system may hold, in bytes; 0
// leaves it to the system. It is called before Serve. The connections stay what
// they are: sendfile needs them so.
func (s *Server) SetSendBuffer(bytes int) {
	if bytes <= 0 {
		return
	}
	s.http.ConnState = func(c net.Conn, state http.ConnState) {
		if state != http.StateNew {
			return
		}
		if t, ok := c.(*tls.Conn); ok {
			c = t.NetConn()
		}
		if b, ok := c.(interface{ SetWriteBuffer(int) error }); ok {
			// A hint: a system that does not take it sends all the same.
			_ = b.SetWriteBuffer(bytes)
		}
	}
}

// limit turns requests beyond n away, to come back at times that are spread.
func limit(h http.Handler, n int) http.Handler {
	slots := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			h.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", strconv.Itoa(5+rand.IntN(26)))
			writeError(w, http.StatusServiceUnavailable, "busy", "the server is busy")
		}
	})
}

// notFound answers what no route takes: 405 where another method would have been right.
func notFound(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			if m == r.Method {
				continue
			}
			other := r.Clone(r.Context())
			other.Method = m
			if _, pattern := mux.Handler(other); pattern != "/" && pattern != "" {
				allow = append(allow, m)
			}
		}
		if len(allow) > 0 {
			w.Header().Set("Allow", strings.Join(allow, ", "))
			writeError(w, http.StatusMethodNotAllowed, "method_not_allowed", "method not allowed")
			return
		}
		writeError(w, http.StatusNotFound, "not_found", "no such path")
	}
}

func writeError(w http.ResponseWriter, status int, code, msg string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"error":"` + msg + `","code":"` + code + `"}`)) // both are ours: nothing to escape
}

// Serve serves until ctx ends, then lets requests in progress finish for 10 s at
// most. cert nil is plain HTTP.
func (s *Server) Serve(ctx context.Context, l net.Listener, cert *tls.Certificate) error {
	if cert != nil {
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
	}
	done := make(chan error, 1)
	go func() {
		if cert != nil {
			done <- s.http.ServeTLS(l, "", "")
			return
		}
		done <- s.http.Serve(l)
	}()
	back := make(chan error, 1)
	go func() { back <- s.http.Serve(s.keeper.back) }()
	select {
	case err := <-done:
		return errors.Join(err, s.http.Close())
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	kept := s.keeper.stop()
	err := s.http.Shutdown(last)
	select {
	case <-kept:
	case <-last.Done():
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close() // whoever is still there was told nothing that is not durable
	}
	s.keeper.cut()
	for _, ended := range []error{<-done, <-back} {
		if !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}
	return err
}
