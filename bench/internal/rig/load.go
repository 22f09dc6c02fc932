package rig

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// Conn is a kept connection that speaks just enough HTTP/1.1 for what our servers
// and nginx answer: it must cost less than what is measured.
type Conn struct {
	net.Conn
	buf []byte
}

// answerTime is the longest that an answer may take.
const answerTime = time.Minute

// Conns are connections to one server.
type Conns []*Conn

// Dial opens n connections, each with a buffer of so many bytes. They are used soon:
// servers close what says nothing.
func Dial(addr string, n, buffer int) (list Conns, err error) {
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			list.Close()
			return nil, err
		}
		list = append(list, &Conn{c, make([]byte, buffer)})
	}
	return list, nil
}

// Close closes all of them.
func (list Conns) Close() {
	for _, c := range list {
		c.Close()
	}
}

// Do sends a request and reads its answer. The body is valid until the next one, and
// nil where it does not fit the buffer: then it was read and dropped.
func (c *Conn) Do(request []byte) (status int, body []byte, err error) {
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return 0, nil, err
	}
	if _, err := c.Write(request); err != nil {
		return 0, nil, err
	}
	n, end := 0, -1
	for end < 0 {
		if n == len(c.buf) {
			return 0, nil, fmt.Errorf("the head of the answer is too long")
		}
		m, err := c.Read(c.buf[n:])
		if err != nil {
			return 0, nil, err
		}
		n += m
		end = bytes.Index(c.buf[:n], headEnd)
	}
	status, length, err := head(c.buf[:end+2])
	if err != nil {
		return 0, nil, err
	}
	at := end + len(headEnd)
	left := length - (n - at)
	if left < 0 {
		return 0, nil, fmt.Errorf("%d bytes behind the answer", -left)
	}
	if at+length <= len(c.buf) {
		for n < at+length {
			m, err := c.Read(c.buf[n : at+length])
			if err != nil {
				return 0, nil, err
			}
			n += m
		}
		return status, c.buf[at : at+length], nil
	}
	for left > 0 {
		m, err := c.Read(c.buf[:min(left, len(c.buf))])
		if err != nil {
			return 0, nil, err
		}
		left -= m
	}
	return status, nil, nil
}

var (
	headEnd    = []byte("\r\n\r\n")
	lengthName = []byte("\r\nContent-Length: ")
)

func head(b []byte) (status, length int, err error) {
	at := bytes.Index(b, lengthName)
	if len(b) < 12 || at < 0 {
		return 0, 0, fmt.Errorf("no answer of a known length: %.200q", b)
	}
	digits, _, _ := bytes.Cut(b[at+len(lengthName):], headEnd[:2])
	if length, err = strconv.Atoi(string(digits)); err == nil {
		status, err = strconv.Atoi(string(b[9:12]))
	}
	return status, length, err
}

// Request is a whole request, made before the clock starts.
type Request []byte

// Run is what a load came to.
type Run struct {
	Requests  int
	Took      time.Duration
	Server    time.Duration // processor time
	Generator time.Duration // the same, of the load generator
}

// PerSecond is requests a second.
func (r Run) PerSecond() float64 { return float64(r.Requests) / r.Took.Seconds() }

// Micros is the server's processor time for a request, in microseconds.
func (r Run) Micros() float64 { return r.Server.Seconds() * 1e6 / float64(r.Requests) }

// Drive has each connection send its requests, one after the other's answer, and
// wants 200 for each. last, if not nil, sees the last answer of each connection.
func Drive(ctx context.Context, p *Process, conns Conns, requests [][]Request, last func(conn int, body []byte) error) (Run, error) {
	errs := make(chan error, len(conns))
	var left sync.WaitGroup
	r := Run{}
	server, own, begin := p.CPU(), OwnCPU(), time.Now()
	for i, c := range conns {
		r.Requests += len(requests[i])
		left.Go(func() {
			for k, q := range requests[i] {
				if k%64 == 0 && ctx.Err() != nil {
					errs <- ctx.Err()
					return
				}
				status, body, err := c.Do(q)
				if err == nil && status != 200 {
					err = fmt.Errorf("status %d for %.60q", status, q)
				}
				if err == nil && last != nil && k == len(requests[i])-1 {
					err = last(i, body)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	left.Wait()
	r.Took, r.Server, r.Generator = time.Since(begin), p.CPU()-server, OwnCPU()-own
	select {
	case err := <-errs:
		return r, err
	default:
		return r, nil
	}
}
