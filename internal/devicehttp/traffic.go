package devicehttp

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// traffic counts what goes through the client's sockets: request and status lines,
// headers, bodies, and over TLS its records too. What TCP and IP add is not in it.
type traffic struct {
	sent, received atomic.Int64
}

const (
	dialTimeout = 10 * time.Second
	keepAlive   = 30 * time.Second // a server that is gone is noticed
)

func (t *traffic) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: c, t: t}, nil
}

// countedConn is a connection whose bytes are counted.
type countedConn struct {
	net.Conn
	t *traffic
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.t.received.Add(int64(n))
	return n, err
}

// Write counts first: the answer may be here before it returns.
func (c *countedConn) Write(p []byte) (int, error) {
	c.t.sent.Add(int64(len(p)))
	n, err := c.Conn.Write(p)
	c.t.sent.Add(int64(n - len(p)))
	return n, err
}

// Traffic is how many bytes the client's sockets sent and received so far, in both
// directions everything above TCP. It may be called at any time.
func (c *Client) Traffic() (sent, received int64) {
	return c.traffic.sent.Load(), c.traffic.received.Load()
}
