package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"
)

// qmp is the emulator's control line: one JSON object a line.
type qmp struct {
	conn     net.Conn
	mu       sync.Mutex // one command at a time
	answers  chan answer
	shutdown chan struct{} // closed when the program reset the chip
	once     sync.Once
}

type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
}

// answerTimeout bounds a command, which takes milliseconds.
const answerTimeout = 30 * time.Second

func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(2 * time.Millisecond): // it is about to listen
		}
	}
}

func dialQMP(ctx context.Context, path string) (*qmp, error) {
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	q := &qmp{conn: conn, answers: make(chan answer, 8), shutdown: make(chan struct{})}
	go q.read()
	if err := q.do("qmp_capabilities", nil); err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) read() {
	defer close(q.answers)
	lines := bufio.NewReader(q.conn)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var a answer
		if json.Unmarshal(line, &a) != nil {
			continue
		}
		switch {
		case a.Event == "SHUTDOWN":
			q.once.Do(func() { close(q.shutdown) })
		case a.Event == "" && (a.Return != nil || a.Error != nil):
			q.answers <- a
		}
	}
}

func (q *qmp) do(command string, args any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := map[string]any{"execute": command}
	if args != nil {
		m["arguments"] = args
	}
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	select {
	case a, ok := <-q.answers:
		switch {
		case !ok:
			return fmt.Errorf("qmp %s: the emulator hung up", command)
		case a.Error != nil:
			return fmt.Errorf("qmp %s: %s", command, a.Error.Desc)
		}
		return nil
	case <-time.After(answerTimeout):
		return fmt.Errorf("qmp %s: no answer in %s", command, answerTimeout)
	}
}

func (q *qmp) close() {
	if q != nil {
		_ = q.conn.Close() // nothing was left to send
	}
}
