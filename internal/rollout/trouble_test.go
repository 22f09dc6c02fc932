package rollout

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// A step each second: what goes on is told once a minute, what is new or over at once.
func TestTrouble(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	away := fmt.Errorf("rollout 7: %w", fleet.Errorf(fleet.CodeBusy, "the database does not answer"))
	full := fleet.Errorf(fleet.CodeNoSpace, "the database's disk is full")
	now := time.Unix(1_000_000, 0)
	var tr trouble
	step := func(n int, err error) (lines []string) {
		for range n {
			tr.ended(t.Context(), log, now, err)
			now = now.Add(Interval)
		}
		lines = strings.Split(strings.TrimSpace(out.String()), "\n")
		out.Reset()
		return lines
	}
	want := func(what string, lines []string, parts ...string) {
		t.Helper()
		ok := len(lines) == len(parts)
		for i := 0; ok && i < len(parts); i++ {
			ok = strings.Contains(lines[i], parts[i])
		}
		if !ok {
			t.Errorf("%s: %q, not %q", what, lines, parts)
		}
	}
	want("all is well", step(100, nil), "")
	want("the first minute", step(60, away), "level=ERROR msg=\"rollouts could not be moved\" error=\"rollout 7: the database does not answer")
	want("the next two", step(120, away), "for=1m0s", "for=2m0s")
	want("of another kind", step(5, full), "disk is full")
	want("of none of ours", step(5, errors.New("odd")), "error=odd")
	want("over", step(30, nil), "level=INFO msg=\"rollouts are moved again\" after=3m10s")
	want("again", step(1, away), "for=0s")
	now = now.Add(-time.Hour)
	want("the clock was set back", step(2, away), "level=ERROR")
}
