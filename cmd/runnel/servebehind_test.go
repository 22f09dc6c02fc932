package main

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/client"
)

// behindBoard is a device that polls and reports, and looks at every answer's proof.
type behindBoard struct {
	t      *testing.T
	url    string
	mac    *native.SoftMAC
	poll   native.Poll
	report native.Report
}

func (b *behindBoard) post(path string, body []byte) []byte {
	b.t.Helper()
	resp, err := http.Post(b.url+path, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		b.t.Fatalf("%s: %d %v", path, resp.StatusCode, err)
	}
	return answer
}

// ask polls with a nonce; fresh: the server took it.
func (b *behindBoard) ask(nonce uint64) (fresh bool) {
	b.t.Helper()
	b.poll.Nonce = nonce
	body, e := b.poll.Encode(make([]byte, native.MaxBody), b.mac)
	if e != 0 {
		b.t.Fatal(e)
	}
	var a native.Answer
	if e := a.Decode(b.post("/r1/poll", body), b.mac, b.poll.Device, nonce, nil); e != 0 {
		b.t.Fatal(e)
	}
	return a.Highest < nonce
}

// say reports a state, and wants it acknowledged.
func (b *behindBoard) say(nonce uint64, s native.State) {
	b.t.Helper()
	b.report.Nonce, b.report.State = nonce, s
	b.report.Number++
	body, e := b.report.Encode(make([]byte, native.MaxBody), b.mac)
	if e != 0 {
		b.t.Fatal(e)
	}
	var a native.Ack
	if e := a.Decode(b.post("/r1/report", body), b.mac, b.poll.Device, nonce, b.report.Boot, b.report.Number); e != 0 {
		b.t.Fatal(e)
	}
}

// What idle polls taught is written behind: a stop in peace loses nothing of it, and a
// kill loses that alone, never a report.
func TestWrittenBehind(t *testing.T) {
	bin, data := buildRunnel(t), filepath.Join(t.TempDir(), "data")
	p := startServer(t, bin, data)
	token := p.token
	_, published := publishPump(t, p.url, token)
	key := bytes.Repeat([]byte{7}, 32)
	add := exec.Command(bin, "devices", "add", "pump-1", "--product", "acme/pump", "--native-key-file", "-", "--server", p.url, "--token", token)
	add.Stdin = bytes.NewReader([]byte(hex.EncodeToString(key) + "\n"))
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	image, err := hex.DecodeString(published.Digest)
	if err != nil {
		t.Fatal(err)
	}
	b := &behindBoard{t: t, url: p.url, mac: &native.SoftMAC{Keys: new(native.Keys), Run: new(digest.SHA256)}}
	b.mac.Keys.Derive((*[32]byte)(key), b.mac.Run)
	b.poll = native.Poll{Device: []byte("pump-1"), Hardware: []byte(published.Manifest.Hardware[0]), HasChip: true, Chip: *published.Manifest.Chip, Boot: 1, Envelope: 2048, Chunk: 16384,
		Profile: native.ProfileSigned, SlotCount: 2, Running: native.Factory}
	b.poll.Slots[0], b.poll.Slots[1] = 1<<20, 1<<20
	b.report = native.Report{Device: b.poll.Device, Boot: 1, Epoch: published.Epoch, Sequence: published.Sequence, Digest: image}
	device := func() client.Device {
		t.Helper()
		c, err := client.New(p.url, token)
		if err != nil {
			t.Fatal(err)
		}
		d, err := c.Device(t.Context(), "pump-1")
		if err != nil || d.Deployment == nil || d.LastSeen == nil {
			t.Fatalf("%+v %v", d, err)
		}
		return d
	}
	again := func() {
		t.Helper()
		p = startServer(t, bin, data)
		b.url = p.url
	}

	b.ask(1) // the first writes: it is offered the release
	idle := time.Now().Truncate(time.Millisecond)
	b.ask(2)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &p.log)
	}
	again()
	if d := device(); d.LastSeen.Before(idle) {
		t.Errorf("stopped in peace: last seen %v, polled after %v", d.LastSeen, idle)
	}
	if b.ask(2) {
		t.Error("stopped in peace: a nonce was taken twice")
	}

	reported := time.Now().Truncate(time.Millisecond)
	b.say(3, native.StateDownloading)
	b.say(4, native.StateTrial)
	b.ask(5)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // killed
	again()
	if d := device(); d.Deployment.State != "trial" || d.LastSeen.Before(reported) {
		t.Errorf("killed: %s, last seen %v; reported trial after %v", d.Deployment.State, d.LastSeen, reported)
	}
	if b.ask(4) {
		t.Error("killed: the nonce of a report was taken twice")
	}
	if !b.ask(6) {
		t.Error("killed: the device does not go on")
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &p.log)
	}
	if out, err := exec.Command(bin, "fsck", "--data", data).CombinedOutput(); err != nil {
		t.Errorf("fsck: %v\n%s", err, out)
	}
}
