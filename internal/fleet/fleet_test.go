package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// A key is 32 bytes of 'K': none of its common spellings may come out.
func TestKeyIsNeverPrinted(t *testing.T) {
	var k Key
	for i := range k {
		k[i] = 'K'
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("x", "key", k, "in", struct{ K Key }{k}, "p", &k)
	}
	out := log.String() + k.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o"} {
		out += fmt.Sprintf(verb, k) + fmt.Sprintf(verb, &k) + fmt.Sprintf(verb, struct{ K Key }{k})
	}
	for _, leak := range []string{"KKK", "4b4b", "4B4B", "75 75", "75,75", "75, 75", "0x4b", "113 113"} {
		if strings.Contains(out, leak) {
			t.Errorf("%q came out", leak)
		}
	}
	if !strings.Contains(out, hiddenKey) {
		t.Error("nothing came out: the test tests nothing")
	}
}

func TestError(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("around: %w", &Error{Code: CodeConflict, Message: "it exists", Op: "add", Err: cause})
	if CodeOf(err) != CodeConflict || !errors.Is(err, cause) || err.Error() != "around: add: it exists: cause" {
		t.Errorf("%v", err)
	}
	if CodeOf(nil) != "" || CodeOf(cause) != CodeInternal || Errorf(CodeBusy, "n=%d", 1).Error() != "n=1" {
		t.Error("codes")
	}
}
