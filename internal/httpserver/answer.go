package httpserver

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// answer is a ResponseWriter that holds the whole answer, so that it goes out in one write.
type answer struct {
	header http.Header
	status int
	body   []byte
	out    []byte
}

// maxKeptAnswer is how many bytes of an answer's buffer are kept for the next one.
const maxKeptAnswer = 64 << 10

var answers = sync.Pool{New: func() any { return &answer{header: http.Header{}} }}

func newAnswer() *answer { return answers.Get().(*answer) }

// done lets others use a.
func (a *answer) done() {
	clear(a.header)
	a.status, a.body, a.out = 0, a.body[:0], a.out[:0]
	if cap(a.body) <= maxKeptAnswer {
		answers.Put(a)
	}
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, b...)
	return len(b), nil
}

// bytes is what goes on the wire, valid until done. last says that the connection ends with it.
func (a *answer) bytes(now time.Time, last bool) []byte {
	a.WriteHeader(http.StatusOK)
	h := a.header
	if len(a.body) > 0 && h["Content-Type"] == nil {
		h.Set("Content-Type", http.DetectContentType(a.body))
	}
	// What was written counts, whatever the handler said. Not even an empty body goes without.
	h.Del("Content-Length")
	b := append(a.out, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(a.status), 10)
	b = append(append(append(b, ' '), http.StatusText(a.status)...), "\r\nDate: "...)
	b = append(append(b, date(now)...), "\r\nContent-Length: "...)
	b = append(strconv.AppendInt(b, int64(len(a.body)), 10), "\r\n"...)
	if last {
		b = append(b, "Connection: close\r\n"...)
	}
	w := appender{b}
	_ = h.Write(&w) // sorted, line ends in values taken out; memory does not fail
	a.out = append(append(w.b, "\r\n"...), a.body...)
	return a.out
}

type appender struct{ b []byte }

func (a *appender) Write(b []byte) (int, error) {
	a.b = append(a.b, b...)
	return len(b), nil
}

func (a *appender) WriteString(s string) (int, error) {
	a.b = append(a.b, s...)
	return len(s), nil
}

// dated is a Date header's text of one second.
type dated struct {
	second int64
	text   string
}

var latest atomic.Pointer[dated]

func date(now time.Time) string {
	second := now.Unix()
	d := latest.Load()
	if d == nil || d.second != second {
		d = &dated{second, now.UTC().Format(http.TimeFormat)}
		latest.Store(d)
	}
	return d.text
}
