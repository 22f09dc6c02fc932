package httpserver

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// keptHead bounds a head, in bytes; longer ones go back. A device sends some 300.
	keptHead = 4096
	// keptStep is how early a deadline may end: to set one takes as long as a MAC, so they are set
	// once in this time and not at each request.
	keptStep = time.Second
)

// keeper keeps connections on which the same small thing is asked for over and over: by a device
// that fetches an image chunk by chunk. For each request net/http has a goroutine watch for a caller
// that hangs up, sets four deadlines and makes maps and buffers, which is more than such an answer
// costs. So the first request takes its connection out of net/http, and those behind it are
// read here, as long as they are of the plainest form (head.go). The first that is not goes back with
// its connection, unread, for net/http to judge (docs/adr/0008-kept-connections.md).
type keeper struct {
	path  string // "": none
	serve http.Handler
	log   *slog.Logger
	back  *returns

	stopping atomic.Bool // set under mu
	mu       sync.Mutex
	conns    map[*keptConn]struct{}
	none     chan struct{} // closed once it is stopping and there are none
}

// Keep has the answers of path, to GETs, served on kept connections. Its handler answers at once,
// keeps nothing of the request, and asks nothing of the ResponseWriter but its three methods. Keep
// is called before Serve, once.
func (s *Server) Keep(path string) {
	s.keeper.path = path
}

func newKeeper(h http.Handler, log *slog.Logger) *keeper {
	return &keeper{serve: h, log: log, back: newReturns(), conns: map[*keptConn]struct{}{}, none: make(chan struct{})}
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !k.takes(r) {
		k.serve.ServeHTTP(w, r)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		k.serve.ServeHTTP(w, r)
		return
	}
	// Requests that were sent behind this one.
	ahead, _ := rw.Reader.Peek(rw.Reader.Buffered()) // of what is there there is no error
	c := &keptConn{k: k, conn: conn, from: again{Conn: conn, ahead: append([]byte(nil), ahead...)}, head: newHead(r, k.path)}
	if a, ok := conn.(*again); ok && len(a.ahead) == 0 {
		c.conn, c.from.Conn = a.Conn, a.Conn // it was here before
	}
	c.now = time.Now()
	kept := k.add(c) // or this answer is the last
	if c.setDeadlines() != nil || !c.answer(r) || !kept {
		c.close()
		return
	}
	// net/http's goroutine ends, and with it all that it holds.
	go c.run()
}

// takes says whether r's connection can be kept: not under TLS, for what goes back would pass for plain.
func (k *keeper) takes(r *http.Request) bool {
	return k.path != "" && r.URL.Path == k.path && r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0 && !r.Close && r.TLS == nil
}

func (k *keeper) add(c *keptConn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopping.Load() {
		return false
	}
	k.conns[c] = struct{}{}
	return true
}

func (k *keeper) remove(c *keptConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.conns[c]; !ok {
		return
	}
	delete(k.conns, c)
	if k.stopping.Load() && len(k.conns) == 0 {
		close(k.none)
	}
}

// stop ends connections that wait for a request, and the others behind their answer. done is closed
// when there are none left.
func (k *keeper) stop() (done <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopping.Store(true)
	for c := range k.conns {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // one that is broken ends by itself
	}
	if len(k.conns) == 0 {
		close(k.none)
	}
	return k.none
}

// cut ends all that is left.
func (k *keeper) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		c.conn.Close()
	}
}

// keptConn is a connection that is kept.
type keptConn struct {
	k    *keeper
	conn net.Conn
	from again // what is read of it
	in   *bufio.Reader
	head *head
	now  time.Time // when the latest request was there
	set  time.Time // when deadlines were set
}

// errGoesBack: what was read is not for here.
var errGoesBack = errors.New("a request that is not kept")

var keptReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, keptHead) }}

func (c *keptConn) run() {
	c.in = keptReaders.Get().(*bufio.Reader)
	c.in.Reset(&c.from)
	defer func() {
		c.in.Reset(nil)
		keptReaders.Put(c.in)
	}()
	for {
		r, err := c.next()
		switch {
		case errors.Is(err, errGoesBack):
			c.giveBack()
			return
		case err != nil || !c.answer(r):
			c.close()
			return
		}
	}
}

// next waits for a request.
func (c *keptConn) next() (*http.Request, error) {
	if err := c.setDeadlines(); err != nil {
		return nil, err
	}
	// A stop comes before the deadline was set, and is seen here, or after, and sets it itself.
	if c.k.stopping.Load() {
		return nil, net.ErrClosed
	}
	n := 1
	for begun := false; ; n = c.in.Buffered() + 1 {
		if n > keptHead {
			return nil, errGoesBack
		}
		if _, err := c.in.Peek(n); err != nil {
			return nil, err
		}
		c.now = time.Now()
		there, _ := c.in.Peek(c.in.Buffered()) // of what is there there is no error
		if b := cutHead(there); b != nil {
			r, ok := c.head.read(b)
			if !ok {
				return nil, errGoesBack
			}
			_, err := c.in.Discard(len(b))
			return r, err
		}
		if !begun {
			begun, c.set = true, time.Time{} // it is set for the next one again
			if err := c.conn.SetReadDeadline(c.now.Add(readHeaderTimeout)); err != nil {
				return nil, err
			}
		}
	}
}

// setDeadlines sets those of the next request and answer, where they are due.
func (c *keptConn) setDeadlines() error {
	if c.now.Sub(c.set) < keptStep {
		return nil
	}
	c.set = c.now
	if err := c.conn.SetReadDeadline(c.now.Add(idleTimeout)); err != nil {
		return err
	}
	return c.conn.SetWriteDeadline(c.now.Add(writeTimeout))
}

// answer serves r, and says whether the connection goes on.
func (c *keptConn) answer(r *http.Request) (more bool) {
	a := newAnswer()
	defer a.done()
	if !c.handle(a, r) {
		return false
	}
	last := c.k.stopping.Load()
	_, err := c.conn.Write(a.bytes(c.now, last))
	return err == nil && !last
}

// handle has the handler make the answer. One that panics ends the connection, as in net/http.
func (c *keptConn) handle(a *answer, r *http.Request) (ok bool) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			c.k.log.ErrorContext(r.Context(), "a request's handler panicked", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	c.k.serve.ServeHTTP(a, r)
	return true
}

func (c *keptConn) close() {
	c.k.remove(c)
	c.conn.Close()
}

// giveBack has net/http serve the connection from the request on that was not taken.
func (c *keptConn) giveBack() {
	there, _ := c.in.Peek(c.in.Buffered())
	a := &again{Conn: c.conn, ahead: append(append([]byte(nil), there...), c.from.ahead...)}
	if c.conn.SetDeadline(time.Time{}) != nil || !c.k.back.put(a) {
		c.conn.Close()
	}
	c.k.remove(c)
}

// again is a connection of which something has been read already.
type again struct {
	net.Conn
	ahead []byte
}

func (a *again) Read(b []byte) (int, error) {
	if len(a.ahead) > 0 {
		n := copy(b, a.ahead)
		a.ahead = a.ahead[n:]
		return n, nil
	}
	return a.Conn.Read(b)
}

// ReadFrom leaves files to the system, as the connection itself would.
func (a *again) ReadFrom(r io.Reader) (int64, error) {
	if f, ok := a.Conn.(io.ReaderFrom); ok {
		return f.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{a.Conn}, r)
}

// returns is the listener by which connections go back to net/http.
type returns struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newReturns() *returns {
	return &returns{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// put says whether somebody took it.
func (r *returns) put(c net.Conn) bool {
	select {
	case r.conns <- c:
		return true
	case <-r.closed:
		return false
	}
}

func (r *returns) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

func (r *returns) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

func (r *returns) Addr() net.Addr { return &net.TCPAddr{} }
