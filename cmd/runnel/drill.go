package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/manifest"
	wire "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

// A virtual board and a server that exist in memory only, for `keys rehearse`: the
// board's updater is the one that runs on a chip, the server says what it is told to
// say, as one in a thief's hands would.

const (
	drillDevice   = "drill"
	drillHardware = "drill"
	drillChunk    = 1024
	drillImage    = 16 << 10 // bytes: what is drilled is keys, not flash
	drillWaits    = 200      // a board that waits so often does not get on
	drillConfirm  = 60       // seconds
	drillComeBack = 60       // seconds, of a virtual clock
)

// drillRelease is a release as a server holds it.
type drillRelease struct {
	m        *release.Manifest
	image    []byte
	envelope []byte
	stream   []byte
	file     [sha256.Size]byte
}

// newDrillRelease builds an image of so many bytes and signs its manifest.
func newDrillRelease(ctx context.Context, p *release.Product, size int, sequence uint32, signers ...release.Signer) (*drillRelease, error) {
	version := fmt.Sprintf("drill-%d", sequence)
	img, err := board.BuildImage(board.ImageSpec{Size: size, Project: "drill", Version: version})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	root, file, _, err := release.BuildStream(&out, bytes.NewReader(img), uint32(len(img)), drillChunk)
	if err != nil {
		return nil, err
	}
	r := &drillRelease{image: img, stream: out.Bytes(), file: file, m: &release.Manifest{
		Product: p.Name, Hardware: [][]byte{[]byte(drillHardware)}, Version: version, Epoch: p.Epoch, Sequence: sequence, SecurityVersion: p.Floor,
		Image:   release.Image{Format: manifest.FormatESP, Digest: sha256.Sum256(img), Size: uint32(len(img)), Streams: []release.Raw{{Chunk: drillChunk, Root: root}}},
		Confirm: release.Confirm{Contact: true, Seconds: drillConfirm}}}
	payload, err := r.m.Encode()
	if err != nil {
		return nil, err
	}
	r.envelope, err = release.Sign(ctx, manifest.KindManifest, payload, signers...)
	return r, err
}

// drillServer answers the native wire. It checks nothing: what holds is what the
// board checks.
type drillServer struct {
	keys                wire.Keys
	run                 digest.SHA256
	version, generation uint32            // of the newest list
	lists               map[string][]byte // by what their path ends in: latest, or a generation
	offer               *drillRelease
	nonce               uint64
}

// serve has the server hold lists, the newest last.
func (s *drillServer) serve(lists ...drillList) {
	s.lists = map[string][]byte{}
	for _, l := range lists {
		g := strconv.FormatUint(uint64(l.list.Generation), 10)
		if s.lists[g] == nil {
			s.lists[g] = l.envelope
		}
		s.lists["latest"], s.version, s.generation = l.envelope, l.list.Version, l.list.Generation
	}
}

func (s *drillServer) mac() *wire.SoftMAC { return &wire.SoftMAC{Keys: &s.keys, Run: &s.run} }

// Do is board.Transport's.
func (s *drillServer) Do(ctx context.Context, r device.Request) (board.Answer, error) {
	path, _, _ := strings.Cut(string(r.Target), "?")
	a := &drillAnswer{head: device.Head{Status: 200}}
	name := path[strings.LastIndexByte(path, '/')+1:]
	switch {
	case path == "/r1/poll":
		a.body = s.poll(r.Body)
	case path == "/r1/report":
		a.body = s.report(r.Body)
	case strings.HasPrefix(path, "/r1/keylists/"):
		a.body = s.lists[name]
	case s.offer != nil && strings.HasPrefix(path, "/r1/manifests/") && name == fmt.Sprintf("%x", sha256.Sum256(s.offer.envelope)):
		a.body = s.offer.envelope
	case s.offer != nil && strings.HasPrefix(path, "/r1/streams/") && name == hex.EncodeToString(s.offer.file[:]) &&
		r.Ranged && r.From <= r.To && int(r.To) < len(s.offer.stream):
		a.head = device.Head{Status: 206, From: r.From, To: r.To, Total: uint32(len(s.offer.stream))}
		a.body = s.offer.stream[r.From : r.To+1]
	}
	if a.body == nil {
		a.head = device.Head{Status: 404}
	}
	return a, ctx.Err()
}

func (s *drillServer) poll(body []byte) []byte {
	var m wire.Poll
	if m.Decode(body, s.mac()) != 0 {
		return nil
	}
	a := wire.Answer{Device: m.Device, Random: m.Random, Nonce: m.Nonce, Highest: s.nonce, ComeBack: drillComeBack,
		ListVersion: s.version, ListGeneration: s.generation}
	if m.Nonce > s.nonce {
		s.nonce = m.Nonce
		if r := s.offer; r != nil {
			sum := sha256.Sum256(r.envelope)
			a.HasOffer = true
			a.Offer = wire.Offer{Epoch: r.m.Epoch, Sequence: r.m.Sequence, Manifest: sum[:], ManifestLength: uint32(len(r.envelope)),
				Stream: r.file[:], Chunk: drillChunk, FileLength: uint64(len(r.stream))}
		}
	}
	out, e := a.Encode(make([]byte, wire.MaxBody), s.mac())
	if e != 0 {
		return nil
	}
	return out
}

func (s *drillServer) report(body []byte) []byte {
	var m wire.Report
	if m.Decode(body, s.mac()) != 0 {
		return nil
	}
	s.nonce = max(s.nonce, m.Nonce)
	a := wire.Ack{Device: m.Device, Nonce: m.Nonce, Boot: m.Boot, Number: m.Number}
	out, e := a.Encode(make([]byte, wire.MaxBody), s.mac())
	if e != 0 {
		return nil
	}
	return out
}

// drillAnswer is an answer from memory.
type drillAnswer struct {
	head device.Head
	body []byte
}

func (a *drillAnswer) Head() device.Head { return a.head }
func (a *drillAnswer) Close() error      { return nil }
func (a *drillAnswer) Read(p []byte) (int, bool, error) {
	n := copy(p, a.body)
	a.body = a.body[n:]
	return n, len(a.body) == 0, nil
}

// drillBoard is a board with its own server.
type drillBoard struct {
	server drillServer
	b      *board.Board
	built  board.Native
	clock  board.VirtualClock
}

// newDrillBoard makes a board that was built with the roots of a key list.
func newDrillBoard(l *release.KeyList, product string) (*drillBoard, error) {
	roots, err := release.TrustRoots(l.Generation, l.M, l.Roots...)
	if err != nil {
		return nil, err
	}
	d := &drillBoard{built: board.Native{Device: drillDevice, Product: product, Hardware: drillHardware, Roots: roots.Baked()}}
	if _, err := rand.Read(d.built.Secret[:]); err != nil {
		return nil, err
	}
	d.server.keys.Derive(&d.built.Secret, &d.server.run)
	chip, err := nor.New(nor.Config{})
	if err != nil {
		return nil, err
	}
	app, err := board.BuildImage(board.ImageSpec{Size: drillImage, Project: "drill", Version: "drill-0"})
	if err != nil {
		return nil, err
	}
	d.b = &board.Board{Chip: chip}
	return d, d.b.Write(board.Layout{Table: board.DefaultTable(), App: app})
}

// drillResult is what a board did with what its server had for it.
type drillResult struct {
	confirmed bool // it runs what was on offer, and keeps it
	refused   device.Reason
	lists     int // key lists that it accepted
}

func (r drillResult) String() string {
	switch {
	case r.confirmed:
		return "it took the release, and confirmed it"
	case r.refused != device.ReasonNone:
		return "it refused: " + r.refused.String()
	}
	return "it took nothing"
}

// drillClock counts the waits of a board that does not get on.
type drillClock struct {
	*board.VirtualClock
	left int
}

func (c *drillClock) Wait(ctx context.Context, ms uint64) error {
	c.left--
	return c.VirtualClock.Wait(ctx, ms)
}

// run powers the board on until it has decided about what is on offer.
func (d *drillBoard) run(ctx context.Context, offer *drillRelease) (drillResult, error) {
	d.server.offer = offer
	var out drillResult
	done := false
	clock := &drillClock{VirtualClock: &d.clock, left: drillWaits}
	err := d.b.Run(ctx, boot.ResetPowerOn, board.App{
		Transport: &d.server, Clock: clock, Native: &d.built, ChunkSize: drillChunk,
		OnEvent: func(e device.Event) {
			switch e.Kind {
			case device.EventKeyList:
				out.lists++
			case device.EventConfirmed:
				out.confirmed = true
			case device.EventFailed:
				out.refused, done = e.Reason, true
			case device.EventUpToDate:
				done = true
			}
		},
		Stop: func() bool { return done || clock.left <= 0 },
	})
	switch {
	case err != nil:
		return out, err
	case !done:
		return out, errors.New("the board came to no end")
	case !out.confirmed:
		return out, nil
	}
	// From outside: what starts is what was on offer, byte for byte.
	bt, err := d.b.Boot()
	if err != nil {
		return out, err
	}
	t, err := d.b.Table()
	if err != nil {
		return out, err
	}
	slots, err := d.b.Slots(&t)
	if err != nil {
		return out, err
	}
	got := make([]byte, len(offer.image))
	if int(bt.Running) >= len(slots) || slots[bt.Running].ReadAt(got, 0) != nil || !bytes.Equal(got, offer.image) {
		return out, errors.New("the board confirmed something else than was on offer")
	}
	return out, nil
}

// drillList is a key list and its signatures.
type drillList struct {
	list     *release.KeyList
	envelope []byte
}

// sealDrillList signs a list. Nothing of it leaves the memory.
func sealDrillList(ctx context.Context, l *release.KeyList, signers ...release.Signer) (drillList, error) {
	p, err := l.Encode()
	if err != nil {
		return drillList{}, err
	}
	env, err := release.Sign(ctx, manifest.KindKeys, p, signers...)
	return drillList{l, env}, err
}

// standIn is a key that exists for the drill only.
func standIn() (release.Signer, ed25519.PublicKey, error) {
	k, err := release.NewKey()
	if err != nil {
		return nil, nil, err
	}
	return release.NewKeySigner(k), k.Public().(ed25519.PublicKey), nil
}
