package main

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/release"
)

// A device that enrolled with a token polls, gets what was signed, fetches manifest
// and stream by the answer alone and reports, over a restart of the server.
func TestServeNative(t *testing.T) {
	dir := t.TempDir()
	data, keyFile := filepath.Join(dir, "d"), filepath.Join(dir, "pump-1.key")
	url, token, stop := inProcess(t, "--data", data, "--come-back", "90s")
	_, published := publishPump(t, url, token)
	cli := func(args ...string) {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), args, nil, &out, &out); code != exitOK {
			t.Fatalf("%v: status %d\n%s", args, code, &out)
		}
	}
	tokenFile := filepath.Join(dir, "t")
	cli("tokens", "add", "--server", url, "--token", token, "--product", "acme/pump", "-o", tokenFile)
	hardware := published.Manifest.Hardware[0]
	cli("enrol", "--server", url, "--token-file", tokenFile, "--id", "pump-1", "--hardware", hardware, "-o", keyFile)
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	var secret [32]byte
	if _, err := hex.Decode(secret[:], bytes.TrimSpace(text)); err != nil {
		t.Fatal(err)
	}
	var keys native.Keys
	var run digest.SHA256
	keys.Derive(&secret, &run)
	mac := &native.SoftMAC{Keys: &keys, Run: &run}
	post := func(path string, body []byte) []byte {
		t.Helper()
		resp, err := http.Post(url+path, "application/octet-stream", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %d %v", path, resp.StatusCode, err)
		}
		return b
	}
	m := native.Poll{Device: []byte("pump-1"), Hardware: []byte(hardware), HasChip: true, Chip: *published.Manifest.Chip, Boot: 1, Envelope: 2048, Chunk: 16384,
		Profile: native.ProfileSigned, SlotCount: 2, Running: native.Factory}
	m.Slots[0], m.Slots[1] = 1<<20, 1<<20
	poll := func() (a native.Answer) {
		t.Helper()
		m.Nonce++
		body, e := m.Encode(make([]byte, native.MaxBody), mac)
		if e != 0 {
			t.Fatal(e)
		}
		if e := a.Decode(post("/r1/poll", body), mac, m.Device, m.Nonce, nil); e != 0 || a.Highest >= m.Nonce {
			t.Fatal(e, a)
		}
		return a
	}
	a := poll()
	if !a.HasOffer || a.Offer.Sequence != published.Sequence || a.ComeBack != 90 || a.ListVersion != 1 {
		t.Fatalf("%+v", a)
	}
	for path, want := range map[string][]byte{"/r1/manifests/": a.Offer.Manifest, "/r1/streams/": a.Offer.Stream} {
		resp, b := fetch(t, url+path+hex.EncodeToString(want))
		var got [32]byte
		run.Reset()
		run.Write(b)
		run.Sum(&got)
		if resp.StatusCode != 200 || !bytes.Equal(got[:], want) {
			t.Errorf("%s: %d, %d bytes", path, resp.StatusCode, len(b))
		}
	}
	if resp, b := fetch(t, url+"/r1/keylists/latest"); resp.StatusCode != 200 || len(b) == 0 || len(b) > release.MaxEnvelope {
		t.Errorf("%d, %d bytes", resp.StatusCode, len(b))
	}
	digest, err := hex.DecodeString(published.Digest)
	if err != nil {
		t.Fatal(err)
	}
	report := func(number uint32, s native.State) {
		t.Helper()
		m.Nonce++
		r := native.Report{Device: m.Device, Nonce: m.Nonce, Boot: 1, Number: number, Epoch: published.Epoch, Sequence: published.Sequence, Digest: digest, State: s}
		body, e := r.Encode(make([]byte, native.MaxBody), mac)
		if e != 0 {
			t.Fatal(e)
		}
		var ack native.Ack
		if e := ack.Decode(post("/r1/report", body), mac, m.Device, m.Nonce, 1, number); e != 0 {
			t.Fatal(e)
		}
	}
	report(1, native.StateTrial)
	stop()
	url, _, stop = inProcess(t, "--data", data)
	defer stop()
	report(1, native.StateTrial)
	report(2, native.StateConfirmed)
	c, err := client.New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Device(t.Context(), "pump-1")
	if err != nil || d.Deployment == nil || d.Deployment.State != "confirmed" || !d.Deployment.Proven || d.StrongestWire != "signed" || d.Assurance != "own" || d.Hardware != hardware {
		t.Errorf("%+v %v", d, err)
	}
	m.Epoch, m.Sequence = published.Epoch, published.Sequence
	if a := poll(); a.HasOffer {
		t.Errorf("%+v", a)
	}
	events, _, err := c.Timeline(t.Context(), "pump-1", 100)
	if err != nil || !strings.Contains(events[0].Detail, "is confirmed on this device") {
		t.Errorf("%+v %v", events, err)
	}
}
