package fleet

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestValidateProduct(t *testing.T) {
	for s, ok := range map[string]bool{
		"default": true, "acme/pump": true, "A.b_c-9/x": true, "a.b": true, strings.Repeat("a", 64): true,
		"": false, "/": false, "a/": false, "/a": false, "a/b/c": false, "a b": false, "ä": false, "a\x00": false,
		".": false, "..": false, "../x": false, "x/..": false, "a\\b": false, "a%2fb": false, strings.Repeat("a", 65): false,
	} {
		check(t, "product", s, ValidateProduct(s), ok)
	}
}

func TestValidateVersion(t *testing.T) {
	for s, ok := range map[string]bool{
		"1.0.0": true, "v4.0.1-3-gdeadbee (dirty)": true, "größer 2": true, strings.Repeat("9", 64): true,
		"": false, " 1": false, "1 ": false, "1\n2": false, "1\x1b[31m": false, "\xff": false, "1\u200b": false,
		"1\u202e2": false, strings.Repeat("9", 65): false,
	} {
		check(t, "version", s, ValidateVersion(s), ok)
	}
}

func TestValidateDeviceID(t *testing.T) {
	for s, ok := range map[string]bool{
		"inverter-1": true, "a": true, "AA:BB:CC": true, "~!": true, strings.Repeat("d", 64): true,
		"": false, "a b": false, "a\t": false, "ä": false, "all": false, ".": false, "..": false, ".a": true, "\x7f": false, strings.Repeat("d", 65): false,
	} {
		check(t, "device id", s, ValidateDeviceID(s), ok)
	}
}

func check(t *testing.T, what, s string, err error, ok bool) {
	t.Helper()
	if (err == nil) != ok {
		t.Errorf("%s %q: %v", what, s, err)
	}
	if err != nil && CodeOf(err) != CodeInvalid {
		t.Errorf("%s %q: code %s", what, s, CodeOf(err))
	}
}

func TestCheckChunkSize(t *testing.T) {
	for _, c := range []struct {
		n        int
		ok, warn bool
	}{
		{-1, false, false}, {0, false, false}, {255, false, false}, {256, true, false}, {300, true, true}, {512, true, false},
		{1000, true, true}, {1024, true, false}, {1360, true, true}, {2048, true, false}, {4096, true, false}, {6144, true, true},
		{8192, true, false}, {12288, true, false}, {16384, true, false}, {16385, false, false},
	} {
		warning, err := CheckChunkSize(c.n)
		if (err == nil) != c.ok || (warning != "") != c.warn {
			t.Errorf("%d: warning %q, error %v", c.n, warning, err)
		}
	}
}

func TestCleanText(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 10, ""},
		{"plain", 10, "plain"},
		{"  two \r\n lines\t", 20, "two lines"},
		{"bell\x07 and \x1b[31mred", 40, "bell and [31mred"},
		{"nul\x00", 40, "nul"},
		{"bad \xff\xfe", 40, "bad \uFFFD\uFFFD"},
		{"right\u202eleft", 40, "right\uFFFDleft"},
		{"ääää", 5, "ää"},
		{"ab cd", 3, "ab"},
		{"ab cd", 4, "ab c"},
		{strings.Repeat(" ", 1000) + "x", 10, ""}, // behind what is looked at
	} {
		if got := CleanText(c.in, c.limit); got != c.want {
			t.Errorf("CleanText(%q, %d) = %q, not %q", c.in, c.limit, got, c.want)
		}
	}
}

func FuzzCleanText(f *testing.F) {
	f.Add("a\x00b\u202e\xff", 7)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit &= 0x3ff
		got := CleanText(s, limit)
		if len(got) > limit || !utf8.ValidString(got) {
			t.Fatalf("%q is too long or no UTF-8", got)
		}
		if again := CleanText(got, limit); again != got {
			t.Fatalf("not settled: %q, then %q", got, again)
		}
		if got != "" && ValidateVersion(got) != nil && len(got) <= MaxVersion {
			t.Fatalf("%q: %v", got, ValidateVersion(got))
		}
	})
}
