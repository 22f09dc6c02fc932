package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// A stream that was damaged while the server was down is served to nobody, to its
// last byte, until the release is pushed again.
func TestServeDamagedStream(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	url, token, stop := inProcess(t, "--data", data)
	_, d := publishPump(t, url, token)
	path := "/r1/streams/" + d.Streams[0].Digest
	_, want := fetch(t, url+path)
	stop()
	file := filepath.Join(data, "blobs", d.Streams[0].Digest)
	bad := bytes.Clone(want)
	bad[len(bad)-1] ^= 1
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	url, _, stop = inProcess(t, "--data", data)
	defer stop()
	for _, headers := range [][]string{nil, {"Range", "bytes=0-99"}} {
		if resp, got := fetch(t, url+path, headers...); resp.StatusCode != 500 || bytes.Contains(got, want[:50]) {
			t.Errorf("status %d, %d bytes", resp.StatusCode, len(got))
		}
	}
	_, release := signedPump(t)
	c, err := client.New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := c.PublishRelease(t.Context(), bytes.NewReader(release), int64(len(release)), fleet.Publication{}); err != nil || p.Created {
		t.Fatal(p, err)
	}
	if resp, got := fetch(t, url+path); resp.StatusCode != 200 || !bytes.Equal(got, want) {
		t.Errorf("pushed again: status %d, %d bytes", resp.StatusCode, len(got))
	}
}
