package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/runnel-fota/runnel/core/digest"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/internal/wire/native"
)

// Nonces of a run are above those of every run before.
func firstNonce() uint64 { return uint64(time.Now().UnixMicro()) }

// Device is a device's side of the native wire: it makes requests, and believes
// answers that prove themselves.
type Device struct {
	poll   core.Poll
	report core.Report
	keys   core.Keys
	run    digest.SHA256
}

// Device is device i, as it is once it runs the release.
func (f *Fleet) Device(i int) *Device {
	r := &f.Release
	d := &Device{poll: core.Poll{Device: []byte(DeviceID(i)), Random: []byte("8 random"), Digest: r.Image.Digest[:], Version: []byte(r.Version), Hardware: []byte("r1"),
		Nonce: firstNonce(), Boot: 1, Epoch: r.Epoch, Sequence: r.Sequence, SecurityVersion: r.SecurityVersion, ListVersion: f.List.Version, ListGeneration: f.List.Generation,
		Envelope: 1400, Chunk: 4096, SlotCount: 2, Running: 1, Profile: core.ProfileSigned, HasChip: true}}
	d.poll.Slots[0], d.poll.Slots[1] = 0x1A0000, 0x1A0000
	d.report = core.Report{Device: d.poll.Device, Boot: uint32(d.poll.Nonce / 1e6), Epoch: r.Epoch, Sequence: r.Sequence, Digest: r.Image.Digest[:]}
	secret := [core.SecretSize]byte(Secret(i))
	d.keys.Derive(&secret, &d.run)
	return d
}

func (d *Device) mac() core.MAC { return &core.SoftMAC{Keys: &d.keys, Run: &d.run} }

// Poll makes its next poll.
func (d *Device) Poll() (Request, error) {
	d.poll.Nonce++
	body, e := d.poll.Encode(make([]byte, core.MaxBody), d.mac())
	return post(native.PathPoll, body), asError(e)
}

// Report makes its next report, of a state and so many bytes.
func (d *Device) Report(state core.State, n uint32) (Request, error) {
	d.poll.Nonce++
	d.report.Nonce, d.report.State, d.report.Bytes = d.poll.Nonce, state, n
	d.report.Number++
	body, e := d.report.Encode(make([]byte, core.MaxBody), d.mac())
	return post(native.PathReport, body), asError(e)
}

// Idle wants the answer to its latest poll to be its own, and to change nothing.
func (d *Device) Idle(body []byte) error {
	var a core.Answer
	if e := a.Decode(body, d.mac(), d.poll.Device, d.poll.Nonce, d.poll.Random); e != 0 {
		return fmt.Errorf("%s: the answer: %w", d.poll.Device, e)
	}
	if a.HasOffer || a.Highest >= d.poll.Nonce {
		return fmt.Errorf("%s: the poll was not an idle one: %+v", d.poll.Device, a)
	}
	return nil
}

// Acked wants the answer to its latest report to be its acknowledgement.
func (d *Device) Acked(body []byte) error {
	var a core.Ack
	if e := a.Decode(body, d.mac(), d.poll.Device, d.report.Nonce, d.report.Boot, d.report.Number); e != 0 {
		return fmt.Errorf("%s: the acknowledgement: %w", d.poll.Device, e)
	}
	return nil
}

func asError(e core.Error) error {
	if e == 0 {
		return nil
	}
	return e
}

func post(path string, body []byte) Request {
	return append([]byte("POST "+path+" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"), body...)
}

// Get is a request for a path.
func Get(path string) Request { return []byte("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") }

// settle has the first device report and poll once, by the server's own handlers in this
// process.
func (f *Fleet) settle(ctx context.Context, s *sqlite.Store) error {
	if err := f.read(ctx, s); err != nil {
		return err
	}
	wire := native.New(native.Config{Devices: s, Catalogue: s, KeyLists: s, Enroller: s, Now: time.Now})
	mux := http.NewServeMux()
	wire.Register(mux)
	call := func(path string, q Request, err error) error {
		if err != nil {
			return err
		}
		_, body, _ := bytes.Cut(q, headEnd)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(body))
		if err != nil {
			return err
		}
		w := &status{head: http.Header{}}
		if mux.ServeHTTP(w, r); w.code != 0 && w.code != http.StatusOK {
			return fmt.Errorf("%s: status %d", path, w.code)
		}
		return nil
	}
	d := f.Device(0)
	report, err := d.Report(core.StateConfirmed, uint32(f.Release.Image.Size))
	err = call(native.PathReport, report, err)
	for range 2 { // of the second nothing is left to write at once
		if err == nil {
			poll, e := d.Poll()
			err = call(native.PathPoll, poll, e)
		}
	}
	return errors.Join(err, wire.Flush(ctx))
}

// status is a ResponseWriter that keeps the status.
type status struct {
	head http.Header
	code int
}

func (s *status) Header() http.Header         { return s.head }
func (s *status) Write(p []byte) (int, error) { return len(p), nil }
func (s *status) WriteHeader(code int)        { s.code = code }
