package httpserver

import (
	"bufio"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// What is read as a head is what net/http reads, and ends where it ends for it.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		plain(keptTarget),
		"GET /kept?chunk_number=17 HTTP/1.1\r\nHost: x:80\r\nDevice-ID: d\r\nx-mac:  a \t\r\nX-MAC: b\r\nConnection: keep-alive\r\nAccept:\r\n\r\nGET /",
		"GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
		"GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
		"GET /kept?n=1 HTTP/1.1\r\nHost: x\n\r\n\r\n",
		"GET /kept?n=1 HTTP/1.1\r\nHost: x\r\n\tb\r\n\r\n",
		"GET /kept?n=1 HTTP/1.1\r\nHost: [::1]:-\r\nPragma: no-cache\r\n\r\n",
		"GET  HTTP/1.1\r\n\r\n",
		"GET /kept?n=1 HTTP/1.1\r\nHost:\r\nHost: x\r\n\r\n", // two, as net/http counts
	} {
		f.Add([]byte(s))
	}
	first, err := http.NewRequest(http.MethodGet, "/kept", nil)
	if err != nil {
		f.Fatal(err)
	}
	h := newHead(first, "/kept")
	f.Fuzz(func(t *testing.T, b []byte) {
		text := cutHead(b)
		if text == nil {
			return
		}
		got, ok := h.read(text)
		if !ok {
			return
		}
		in := bufio.NewReader(strings.NewReader(string(b)))
		want, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("net/http does not take it: %v", err)
		}
		rest, err := io.ReadAll(in)
		if err != nil || string(rest) != string(b[len(text):]) {
			t.Fatalf("behind it net/http has %q, %v", rest, err)
		}
		if want.Close || want.ContentLength != 0 || want.Body != http.NoBody || len(want.TransferEncoding) != 0 {
			t.Fatalf("net/http reads %+v", want)
		}
		// It makes up a header that old clients mean by another; no handler of ours looks at it.
		if want.Header.Get("Pragma") == "no-cache" && got.Header["Cache-Control"] == nil {
			want.Header.Del("Cache-Control")
		}
		if got.Method != want.Method || got.RequestURI != want.RequestURI || got.Host != want.Host || got.URL.RequestURI() != want.URL.RequestURI() ||
			!reflect.DeepEqual(*got.URL, *want.URL) || !reflect.DeepEqual(got.Header, want.Header) {
			t.Fatalf("%+v\nnot %+v", got, want)
		}
	})
}

// A request does not keep anything of the one before it.
func TestHeadAnew(t *testing.T) {
	first, err := http.NewRequest(http.MethodGet, "/kept", nil)
	if err != nil {
		t.Fatal(err)
	}
	h := newHead(first, "/kept")
	r, ok := h.read([]byte("GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nA: 1\r\nA: 2\r\nB: 3\r\n\r\n"))
	if !ok || len(r.Header["A"]) != 2 || r.Header.Get("B") != "3" || r.FormValue("n") != "1" {
		t.Fatalf("%v %+v", ok, r)
	}
	r, ok = h.read([]byte("GET /kept?n=2 HTTP/1.1\r\nHost: y\r\nB: 4\r\n\r\n"))
	if !ok || len(r.Header) != 1 || r.Header.Get("B") != "4" || r.Host != "y" || r.FormValue("n") != "2" {
		t.Fatalf("%v %+v", ok, r)
	}
}
