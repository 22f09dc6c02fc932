package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/runnel-fota/runnel/internal/notify"
)

// scriptHooks are the receivers of the scripts that run side by side.
type scriptHooks struct {
	mu   sync.Mutex
	came map[*testscript.TestScript]chan hooked
}

type hooked struct {
	signature string
	body      []byte
}

func (h *scriptHooks) start(ts *testscript.TestScript, _ bool, _ []string) {
	came := make(chan hooked, 64)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender tries again
		}
		came <- hooked{r.Header.Get(notify.HeaderSignature), body}
	}))
	h.mu.Lock()
	h.came[ts] = came
	h.mu.Unlock()
	ts.Defer(s.Close)
	ts.Setenv("HOOK", s.URL)
}

func (h *scriptHooks) await(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("hooked FILE")
	}
	h.mu.Lock()
	came := h.came[ts]
	h.mu.Unlock()
	select {
	case n := <-came:
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), append([]byte(n.signature+"\n"), n.body...), 0o644))
	case <-time.After(awaitLimit):
		ts.Fatalf("no notification came")
	}
}
