package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
)

// A demo's keys, should somebody keep them: sign, verify, keys and every server but
// the demo's own refuse them.
func TestDemoKeysCountNowhereElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	runs := func(code int, want string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		if got := run(t.Context(), args, nil, &out, &out); got != code || !strings.Contains(out.String(), want) {
			t.Errorf("%v: status %d, want %d and %q: %s", args, got, code, want, out.String())
		}
	}
	runs(0, "", "keys", "init", dir, "--no-passphrase", "--product", "acme/pump")
	held, err := readList(filepath.Join(dir, listFile))
	if err != nil {
		t.Fatal(err)
	}
	root, err := release.ReadKey(filepath.Join(dir, "root.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := held.List.Clone()
	l.ThrowAway = true
	p, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	marked, err := release.Sign(t.Context(), manifest.KindKeys, p, release.NewKeySigner(root))
	if err != nil {
		t.Fatal(err)
	}
	if err := writeList(dir, listFile, marked); err != nil {
		t.Fatal(err)
	}
	image, _ := signedPump(t)
	bin, rel := filepath.Join(dir, "a.bin"), filepath.Join(dir, "a.runnel")
	m := releasetest.Manifest(t, "acme/pump", "1.0", image)
	for name, data := range map[string][]byte{bin: image, rel: releasetest.File(t, marked, m, image, nil)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const why = "this key list is a demo's"
	runs(1, why, "keys", "list", dir)
	runs(1, why, "keys", "product", dir, "acme/valve", "--yes")
	runs(1, why, "sign", bin, "--product", "acme/pump", "--version", "2", "--sequence", "1", "--key", filepath.Join(dir, "release.key"), "--yes", "-o", rel+"2")
	runs(1, why, "verify", rel, "--root", filepath.Join(dir, "root.pub"))
	runs(0, "throw-away", "inspect", filepath.Join(dir, listFile))

	for demo, flags := range map[bool][]string{false: nil, true: {"--" + throwAwayFlag}} {
		url, token, stop := inProcess(t, append([]string{"--data", filepath.Join(t.TempDir(), "d")}, flags...)...)
		c, err := client.New(url, token)
		if err != nil {
			t.Fatal(err)
		}
		// Past the tool, which refuses it itself: the server is asked.
		_, created, err := c.PublishKeyList(t.Context(), marked)
		if demo && (err != nil || !created) || !demo && (err == nil || !strings.Contains(err.Error(), why)) {
			t.Errorf("a server, the demo's own is %v: %v", demo, err)
		}
		stop()
	}
}
