package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
)

const token = "rnl_secret"

func newClient(t *testing.T, url string) *client.Client {
	t.Helper()
	c, err := client.New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestURLs(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:8080", "ftp://x", "http://", "http://u:hunter2@x", "http://x/?q=1", ":"} {
		_, err := client.New(bad, token)
		var e *fleet.Error
		if !errors.As(err, &e) || e.Code != fleet.CodeInvalid || e.Hint == "" || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Every answer that is no success becomes an error that somebody can act on.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name, kind, body string
		status           int
		code             fleet.Code
		shows            string
	}{
		{"a problem", "application/problem+json", `{"detail":"no device is called x","code":"not_found","hint":"add it"}`, 404, fleet.CodeNotFound, "no device is called x"},
		{"where", "application/problem+json", `{"detail":"validation failed","code":"invalid","errors":[{"location":"body.id","message":"expected string"}]}`, 422, fleet.CodeInvalid, "body.id: expected string"},
		{"busy, of the bound before the API", "application/json", `{"error":"the server is busy","code":"busy"}`, 503, fleet.CodeBusy, "the server is busy"},
		{"control characters", "application/problem+json", `{"detail":"a\u001b[31mb","code":"invalid"}`, 400, fleet.CodeInvalid, "a [31mb"},
		{"another server's page", "text/html", `<html>`, 502, fleet.CodeInternal, "502"},
		{"a success that is none", "text/html", `<html>`, 200, fleet.CodeInternal, "not that of a Runnel server"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+token {
				t.Errorf("%s: no token", c.name)
			}
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		_, err := newClient(t, s.URL).Device(t.Context(), "x")
		s.Close()
		if fleet.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.shows) || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A token goes to the server that it was given for and to no other.
func TestRedirectIsNotFollowed(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked: %v", r.Header) }))
	defer thief.Close()
	s := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	c := newClient(t, s.URL)
	if _, err := c.Devices(t.Context()); err == nil {
		t.Error("no error")
	}
	if _, err := c.Publish(t.Context(), "p", "1", 1024, "", strings.NewReader("x"), 1, fleet.Publication{}); err == nil {
		t.Error("no error")
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	_, err := newClient(t, s.URL).Devices(t.Context())
	var e *fleet.Error
	if !errors.As(err, &e) || e.Code != fleet.CodeBusy || !strings.Contains(e.Hint, s.URL) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newClient(t, s.URL).Devices(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Names with slashes and questions stay in their place of the path.
func TestPaths(t *testing.T) {
	got := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.RequestURI
		io.WriteString(w, `{}`)
	}))
	defer s.Close()
	c := newClient(t, s.URL+"/")
	for want, call := range map[string]func() error{
		"GET /api/v1/devices/a%2Fb%3Fc":                 func() error { _, err := c.Device(t.Context(), "a/b?c"); return err },
		"POST /api/v1/devices/a%2Fb/reset-nonce":        func() error { _, err := c.ResetNonce(t.Context(), "a/b"); return err },
		"POST /api/v1/devices/all/rollback":             func() error { _, err := c.Rollback(t.Context(), "all", ""); return err },
		"GET /api/v1/releases?product=acme%2Fpump":      func() error { _, err := c.Releases(t.Context(), "acme/pump", ""); return err },
		"GET /api/v1/logs?device=a%26limit%3D5&limit=7": func() error { _, _, err := c.Logs(t.Context(), "a&limit=5", 7); return err },
		"POST /api/v1/releases?chunk_size=1024&product=p&version=1%2B2": func() error {
			_, err := c.Publish(t.Context(), "p", "1+2", 1024, "", strings.NewReader("x"), 1, fleet.Publication{})
			return err
		},
	} {
		if err := call(); err != nil || got != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}
