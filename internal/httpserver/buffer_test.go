package httpserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"
)

// buffered is a connection that notes the size of its send buffer.
type buffered struct {
	*net.TCPConn
	size chan int
}

func (b buffered) SetWriteBuffer(n int) error {
	b.size <- n
	return b.TCPConn.SetWriteBuffer(n)
}

type bufferedListener struct {
	net.Listener
	size chan int
}

func (l bufferedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return buffered{c.(*net.TCPConn), l.size}, nil
}

// Each connection gets its send buffer once, under TLS too, and none where the
// system is to choose.
func TestSendBuffer(t *testing.T) {
	cert := selfSigned(t)
	for name, c := range map[string]struct {
		bytes int
		cert  *tls.Certificate
	}{"default": {DefaultSendBuffer, nil}, "TLS": {300_000, &cert}, "the system's": {0, nil}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.HandleFunc("GET /x", func(http.ResponseWriter, *http.Request) {})
		s := New(mux, 0, slog.New(slog.DiscardHandler))
		s.SetSendBuffer(c.bytes)
		sizes := make(chan int, 10)
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, bufferedListener{l, sizes}, c.cert) }()
		scheme, transport := "http", &http.Transport{}
		if c.cert != nil {
			scheme, transport.TLSClientConfig = "https", &tls.Config{InsecureSkipVerify: true}
		}
		for range 2 { // the second on the same connection
			resp, err := (&http.Client{Transport: transport}).Get(scheme + "://" + l.Addr().String() + "/x")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		transport.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		close(sizes)
		var got []int
		for n := range sizes {
			got = append(got, n)
		}
		if c.bytes == 0 && len(got) != 0 || c.bytes > 0 && (len(got) != 1 || got[0] != c.bytes) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
