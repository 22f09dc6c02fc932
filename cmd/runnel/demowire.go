package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

// What differs in the demo from wire to wire: keys, how a release is published, how
// the board speaks, what of its traffic is B.

// throwAwayFlag has a server take a demo's key list. It is in no help: for an
// operator there is nothing to gain by it.
const throwAwayFlag = "demo-keys"

const (
	demoConfirm = 60 // seconds of a trial
	demoSecond  = "demo-board-2"
)

// demoTrust is the demo's signing keys. Everybody on this machine could have read
// them: the key list says so, and nobody else takes it.
type demoTrust struct {
	key   ed25519.PrivateKey // of releases
	trust *release.Trust
	baked []byte // what the board is built with
}

// chunkBytes is how many bytes of chunks, hashes left out, are in the first n of a
// stream file.
func chunkBytes(n int) int {
	const record = demoChunk + 32
	return n/record*demoChunk + min(n%record, demoChunk)
}

// makeKeys does what `runnel keys init` does, and has the server take the list.
func (d *demo) makeKeys(ctx context.Context) error {
	dir := filepath.Join(d.dir, "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := makeKey(dir, "root", nil)
	if err != nil {
		return err
	}
	if d.trust.key, err = makeKey(dir, "release", nil); err != nil {
		return err
	}
	public := root.Public().(ed25519.PublicKey)
	l := &release.KeyList{Version: 1, Generation: 1, M: 1, ThrowAway: true, Roots: []ed25519.PublicKey{public},
		Keys:     []release.Key{{Public: d.trust.key.Public().(ed25519.PublicKey), Roles: manifest.RoleRelease}},
		Products: []release.Product{{Name: demoProduct, Threshold: 1}}}
	p, err := l.Encode()
	if err != nil {
		return err
	}
	env, err := release.Sign(ctx, manifest.KindKeys, p, release.NewKeySigner(root))
	if err != nil {
		return err
	}
	if err := writeList(dir, listFile, env); err != nil {
		return err
	}
	roots, err := release.TrustRoots(1, 1, public)
	if err != nil {
		return err
	}
	roots.ThrowAway = true
	d.trust.baked = roots.Baked()
	if d.trust.trust, err = roots.Accept(env); err != nil {
		return err
	}
	if _, _, err := d.api.PublishKeyList(ctx, env); err != nil {
		return err
	}
	d.log.emit(boardEvent{Event: "keys", Text: "a root and a release key, to be thrown away; the server has their list"})
	return nil
}

// addDevice makes the board known to the server, with a key of its own.
func (d *demo) addDevice(ctx context.Context) error {
	if d.kind == board.V1 {
		_, err := d.api.AddDevice(ctx, demoDevice, demoProduct, hex.EncodeToString(d.key))
		return err
	}
	_, err := d.api.AddNativeDevice(ctx, demoDevice, demoProduct, hex.EncodeToString(d.key), "")
	return err
}

func (d *demo) hardware() string {
	if esp32.ChipName(d.chipID) == "" {
		return "demo"
	}
	return chipHardware(d.chipID)
}

// identify says who the board is on its wire.
func (d *demo) identify(app *board.App) {
	if d.kind == board.V1 {
		app.Identity = v1.Identity{ID: demoDevice, Signed: true, Key: d.key}
		return
	}
	app.Native = &board.Native{Device: demoDevice, Product: demoProduct, Hardware: d.hardware(), Roots: d.trust.baked,
		Secret: [32]byte(d.key), MinPollMillis: demoPoll, MaxPollMillis: demoPoll}
}

// pushSigned makes a release file, as `runnel sign` does, and publishes it.
func (d *demo) pushSigned(ctx context.Context, version string, img []byte) (client.Published, error) {
	d.sequence++
	im, err := release.CheckImage(bytes.NewReader(img))
	if err != nil {
		return client.Published{}, err
	}
	raw, err := release.DescribeRaw(ctx, bytes.NewReader(img), im.Size, demoChunk, nil)
	if err != nil {
		return client.Published{}, err
	}
	im.Streams = []release.Raw{{Chunk: demoChunk, Root: raw.Root}}
	m := &release.Manifest{Product: demoProduct, Hardware: [][]byte{[]byte(d.hardware())}, Version: version, Sequence: d.sequence,
		Image: im, Confirm: release.Confirm{Contact: true, Seconds: demoConfirm}}
	p, err := m.Encode()
	if err != nil {
		return client.Published{}, err
	}
	env, err := release.Sign(ctx, manifest.KindManifest, p, release.NewKeySigner(d.trust.key))
	if err != nil {
		return client.Published{}, err
	}
	name := filepath.Join(d.dir, version+".runnel")
	if err := replaceFile(name, 0o600, func(f *os.File) error {
		return release.Write(f, &release.File{KeyList: d.trust.trust.Envelope, Manifest: env, Image: bytes.NewReader(img), Size: int64(len(img))})
	}); err != nil {
		return client.Published{}, err
	}
	f, err := os.Open(name)
	if err != nil {
		return client.Published{}, err
	}
	defer f.Close()
	if _, err := release.Verify(ctx, f, d.trust.trust, release.Options{}); err != nil {
		return client.Published{}, fmt.Errorf("what was signed does not verify: %w", err)
	}
	st, err := f.Stat()
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		return client.Published{}, err
	}
	if d.stream == "" {
		d.stream = "/r1/streams/" + raw.Digest.String()
	}
	return d.api.PublishRelease(ctx, f, st.Size(), fleet.Publication{})
}

// Do carries a request, and counts what of B is fetched.
func (d *demo) Do(ctx context.Context, r device.Request) (board.Answer, error) {
	if d.kind == board.V1 {
		return d.chunk(ctx, &r)
	}
	return d.line.Do(ctx, r)
}

// uninterrupted has a second board take B, for the time that it takes where nobody
// pulls the plug.
func (d *demo) uninterrupted(ctx context.Context) error {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	if _, err := d.api.AddNativeDevice(ctx, demoSecond, demoProduct, hex.EncodeToString(key), ""); err != nil {
		return err
	}
	chip, err := nor.New(nor.Config{})
	if err != nil {
		return err
	}
	b := &board.Board{Chip: chip, ChipID: d.chipID}
	if err := b.Write(board.Layout{Table: board.DefaultTable(), App: d.a}); err != nil {
		return err
	}
	l := &timedLine{dev: d.dev}
	l.clock.power(chip)
	var up *device.Updater
	var failed error
	app := board.App{
		Transport: l, PollMillis: demoPoll, Seed: 2,
		OnStart: func(u *device.Updater, _ board.Boot) { up = u },
		OnEvent: func(e device.Event) {
			l.clock.event(e)
			if e.Kind == device.EventFailed {
				failed = fmt.Errorf("a second board does not take B: %s", e.Reason)
			}
		},
		Stop: func() bool {
			if up != nil {
				l.clock.step(up.Status().Phase)
			}
			return failed != nil || l.clock.took != 0
		},
	}
	d.identify(&app)
	app.Native.Device, app.Native.Secret = demoSecond, [32]byte(key)
	if err := errors.Join(b.Run(ctx, boot.ResetPowerOn, app), failed); err != nil {
		return err
	}
	d.smooth = l.clock.took
	d.log.emit(boardEvent{Event: "measured", Text: fmt.Sprintf("a second board took B without a cut: %.2f s by the clocks of a modelled board", d.smooth.Seconds())})
	return nil
}

// allocsPerRecord measures with a small release of its own.
func (d *demo) allocsPerRecord(ctx context.Context) (float64, error) {
	const records = 64 // as many as board.AllocsPerRecord asks for
	if d.trust.key == nil {
		return 0, nil // the demo failed before there were keys: there is nothing to say
	}
	r, err := newDrillRelease(ctx, &release.Product{Name: demoProduct}, records*drillChunk, 1, release.NewKeySigner(d.trust.key))
	if err != nil {
		return 0, err
	}
	return board.AllocsPerRecord(board.SignedStream{Native: &board.Native{Device: "measure", Product: demoProduct, Hardware: drillHardware},
		Envelope: r.envelope, File: r.stream})
}

// chunk counts the bytes of B's chunks that are asked for.
func (d *demo) chunk(ctx context.Context, r *device.Request) (board.Answer, error) {
	if u, err := url.ParseRequestURI(string(r.Target)); err == nil && u.Path == v1.ChunkPath && !d.full {
		if n, err := strconv.Atoi(u.Query().Get("chunk_number")); err == nil && n*demoChunk < len(d.imgB) {
			d.fetched += min(demoChunk, len(d.imgB)-n*demoChunk)
		}
	}
	a, err := d.dev.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	return a, nil
}
