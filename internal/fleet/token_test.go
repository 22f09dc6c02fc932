package fleet

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	a, err := NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := NewToken(rand.Reader)
	if a == b || !strings.HasPrefix(a, "rnl_") || len(a) != 4+43 {
		t.Errorf("%q %q", a, b)
	}
	if h, err := HashToken(a); err != nil || h == (Digest{}) {
		t.Errorf("%v", err)
	}
	if _, err := NewToken(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a token of 31 random bytes")
	}
	for _, bad := range []string{"", "rnl_", a[:len(a)-1], a + "A", a[4:], "rnl_" + strings.Repeat("!", 43), a[:20] + "\n" + a[20:], strings.ToUpper(a[:4]) + a[4:]} {
		if _, err := HashToken(bad); CodeOf(err) != CodeUnauthenticated {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseDigest(t *testing.T) {
	s := strings.Repeat("0123456789abcdef", 4)
	if d, err := ParseDigest(s); err != nil || d.String() != s {
		t.Errorf("%v %v", d, err)
	}
	for _, bad := range []string{"", s[1:], s + "0", "x" + s[1:]} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("%q", bad)
		}
	}
}
