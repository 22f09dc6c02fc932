package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSigningExitStatus: 0 done, 1 failed, 2 wrong use; scripts depend on it.
func TestSigningExitStatus(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("image"), []byte("raw image"), 0o600); err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) (int, string) {
		var out, errOut bytes.Buffer
		code := run(context.Background(), args, strings.NewReader(""), &out, &errOut)
		return code, out.String() + errOut.String()
	}
	if code, text := call("keys", "init", at("k"), "--no-passphrase", "--product", "acme/pump"); code != exitOK {
		t.Fatal(text)
	}
	sign := []string{"sign", at("image"), "--product", "acme/pump", "--version", "1", "--sequence", "1", "--hardware", "b1", "--key", at("k/release.key")}
	with := func(more ...string) []string { return append(append([]string(nil), sign...), more...) }
	verify := []string{"verify", at("a.runnel"), "--root", at("k/root.pub")}
	spoil := func() {
		p, err := os.ReadFile(at("a.runnel"))
		if err != nil {
			t.Fatal(err)
		}
		p[len(p)/2] ^= 1
		if err := os.WriteFile(at("a.runnel"), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		args []string
		want int
		do   func()
	}{
		{"no terminal, no --yes", with("-o", at("a.runnel")), exitUsage, nil},
		{"signed", with("-o", at("a.runnel"), "--yes"), exitOK, nil},
		{"exists", with("-o", at("a.runnel"), "--yes"), exitUsage, nil},
		{"no output", with("--yes"), exitUsage, nil},
		{"bad number", with("--chunk-size", "7", "-o", at("b.runnel")), exitUsage, nil},
		{"whole", verify, exitOK, nil},
		{"no roots", verify[:2], exitUsage, nil},
		{"m above the roots", append(verify[:4:4], "--m", "2"), exitUsage, nil},
		{"no file", []string{"verify", at("none"), "--root", at("k/root.pub")}, exitFailed, nil},
		{"spoilt", verify, exitFailed, spoil},
		{"spoilt, inspected", []string{"inspect", at("a.runnel")}, exitFailed, nil},
		{"no passphrase", []string{"keys", "init", at("n")}, exitUsage, nil},
		{"keys exist", []string{"keys", "init", at("k"), "--no-passphrase"}, exitFailed, nil},
		{"no such format", []string{"keys", "export", at("k"), "--format", "rust"}, exitUsage, nil},
		{"no such key", []string{"keys", "revoke", at("k"), "0011223344556677", "--yes"}, exitFailed, nil},
	} {
		if c.do != nil {
			c.do()
		}
		if code, text := call(c.args...); code != c.want {
			t.Errorf("%s: exit status %d, want %d\n%s", c.name, code, c.want, text)
		}
	}
}
