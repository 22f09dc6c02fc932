package httpserver

import (
	"bytes"
	"context"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// head reads heads of requests, one after the other, into the same request: nothing of
// it may be used once the next is read.
type head struct {
	path    string       // the only one that is read
	base    http.Request // what the requests of the connection have in common
	header  http.Header
	values  []string // that the header's lists are parts of
	url     url.URL
	request http.Request
}

// maxHeadFields is how many header fields a head may have; more are net/http's.
const maxHeadFields = 32

// newHead reads requests for path, on the connection that first came by.
func newHead(first *http.Request, path string) *head {
	h := &head{path: path, header: make(http.Header, maxHeadFields), values: make([]string, 0, maxHeadFields)}
	r := http.Request{Method: http.MethodGet, URL: &h.url, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h.header, Body: http.NoBody, RemoteAddr: first.RemoteAddr}
	// It ends with no request: a caller that hangs up is noticed when the answer is written.
	h.base = *r.WithContext(context.WithoutCancel(first.Context()))
	return h
}

// read reads b, which ends with the head's empty line. It takes what is certain to mean the
// same to everybody: a GET of HTTP/1.1 without a body, of letters that need no escapes, each field
// in one line. What it does not take, ok false, is net/http's to judge.
func (h *head) read(b []byte) (r *http.Request, ok bool) {
	const method, proto = "GET ", " HTTP/1.1"
	text := string(b) // the request's strings are parts of it
	line, rest, _ := strings.Cut(text, "\r\n")
	if !strings.HasPrefix(line, method) || !strings.HasSuffix(line, proto) || len(line) <= len(method)+len(proto) {
		return nil, false
	}
	target := line[len(method) : len(line)-len(proto)]
	path, query, _ := strings.Cut(target, "?")
	if path != h.path || query == "" || !allOf(query, inQuery) {
		return nil, false
	}
	clear(h.header)
	h.values, h.request = h.values[:0], h.base
	for rest != "\r\n" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, found := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !found || name == "" || !allOf(name, inName) || !allOf(value, inValue) || !h.field(textproto.CanonicalMIMEHeaderKey(name), value) {
			return nil, false
		}
	}
	if h.request.Host == "" {
		return nil, false
	}
	h.url.Path, h.url.RawQuery = path, query
	h.request.RequestURI = target
	return &h.request, true
}

// field notes a header field, but for those that change what a connection or a head means.
func (h *head) field(name, value string) bool {
	switch name {
	case "Host":
		if h.request.Host != "" || value == "" || !allOf(value, inHost) {
			return false
		}
		h.request.Host = value
		return true
	case "Connection":
		if !strings.EqualFold(value, "keep-alive") {
			return false
		}
	case "Content-Length", "Transfer-Encoding", "Trailer", "Expect", "Upgrade":
		return false
	}
	if len(h.values) == cap(h.values) {
		return false // to grow would take the lists away from their values
	}
	h.values = append(h.values, value)
	// A list that is added to goes elsewhere: the value behind it is another field's.
	n := len(h.values)
	if list := h.header[name]; list == nil {
		h.header[name] = h.values[n-1 : n : n]
	} else {
		h.header[name] = append(list, value)
	}
	return true
}

var endOfHead = []byte("\r\n\r\n")

// cutHead is the head that b begins with, with its empty line; nil where it is not all there.
func cutHead(b []byte) []byte {
	i := bytes.Index(b, endOfHead)
	if i < 0 {
		return nil
	}
	return b[:i+len(endOfHead)]
}

// Sets of characters, by byte.
const (
	inName = 1 << iota
	inValue
	inQuery
	inHost
)

var characters = func() (set [256]uint8) {
	for c := ' '; c <= '~'; c++ {
		set[c] = inValue
	}
	set['\t'] |= inValue
	for c := range set {
		if '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			set[c] |= inName | inQuery | inHost
		}
	}
	for of, list := range map[uint8]string{inName: "-", inQuery: "=&._-", inHost: ".:-[]"} {
		for _, c := range list {
			set[c] |= of
		}
	}
	return set
}()

func allOf(s string, set uint8) bool {
	for i := range len(s) {
		if characters[s[i]]&set == 0 {
			return false
		}
	}
	return true
}
