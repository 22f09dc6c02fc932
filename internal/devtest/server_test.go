package main

import (
	"strings"
	"testing"
)

func TestWeighed(t *testing.T) {
	for _, c := range []struct {
		size int64
		want outcome
		says string
	}{{25_395_465, passed, "25,395,465 bytes, the limit is 35,000,000"}, {maxServer - 1, passed, "34,999,999"}, {maxServer, failed, "35,000,000 bytes"}, {999, passed, "999 bytes"}} {
		if r := weighed(c.size); r.outcome != c.want || !strings.Contains(r.note, c.says) {
			t.Errorf("%d: %s, %s", c.size, r.outcome, r.note)
		}
	}
}

// Nobody gets hundreds of modules who did not ask for them, and in CI nothing may be absent.
func TestS3StepWithoutServer(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	e := &env{out: t.Output()}
	if r := stepS3(t.Context(), e); r.outcome != absent || !strings.Contains(r.note, "make test-s3") {
		t.Errorf("%s: %s", r.outcome, r.note)
	}
}
