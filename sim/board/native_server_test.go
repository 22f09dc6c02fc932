package board

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/release"
)

// trustees are the people with keys, from seeds: the same in every run.
type trustees struct {
	roots, releases []ed25519.PrivateKey
	list            *release.KeyList
	trust           *release.Trust // after the newest list
}

func keyOf(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

const testProduct = "test/board"

// newTrustees have m of roots, and one release key.
func newTrustees(t testing.TB, roots, m int) *trustees {
	t.Helper()
	p := &trustees{releases: []ed25519.PrivateKey{keyOf(0x40)}}
	l := &release.KeyList{Version: 1, Generation: 1, M: m, Products: []release.Product{{Name: testProduct, Threshold: 1}}}
	for i := range roots {
		p.roots = append(p.roots, keyOf(0x10+byte(i)))
		l.Roots = append(l.Roots, public(p.roots[i]))
	}
	l.Keys = []release.Key{{Public: public(p.releases[0]), Roles: manifest.RoleRelease}}
	var err error
	if p.trust, err = release.TrustRoots(1, m, l.Roots...); err != nil {
		t.Fatal(err)
	}
	p.list = l
	return p
}

// publish signs the list with so many roots and takes it.
func (p *trustees) publish(t testing.TB, signers ...ed25519.PrivateKey) []byte {
	t.Helper()
	env := p.sign(t, manifest.KindKeys, p.list.Encode, signers...)
	next, err := p.trust.Accept(env)
	if err != nil {
		t.Fatal(err)
	}
	p.trust = next
	return env
}

func (p *trustees) sign(t testing.TB, kind manifest.Kind, encode func() ([]byte, error), signers ...ed25519.PrivateKey) []byte {
	t.Helper()
	payload, err := encode()
	if err != nil {
		t.Fatal(err)
	}
	var s []release.Signer
	for _, k := range signers {
		s = append(s, release.NewKeySigner(k))
	}
	env, err := release.Sign(context.Background(), kind, payload, s...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// nativeRelease is a signed image and its stream.
type nativeRelease struct {
	m        *release.Manifest
	envelope []byte
	image    []byte
	stream   []byte
	file     [32]byte
}

func (p *trustees) release(t testing.TB, img []byte, version string, sequence uint32, chunk int, change ...func(*release.Manifest)) *nativeRelease {
	t.Helper()
	r := &nativeRelease{image: img}
	var out bytes.Buffer
	root, file, _, err := release.BuildStream(&out, bytes.NewReader(img), uint32(len(img)), uint32(chunk))
	if err != nil {
		t.Fatal(err)
	}
	r.stream, r.file = out.Bytes(), file
	r.m = &release.Manifest{Product: testProduct, Hardware: [][]byte{[]byte("esp32")}, Version: version, Sequence: sequence,
		Image: release.Image{Format: manifest.FormatESP, Digest: sha256.Sum256(img), Size: uint32(len(img)),
			Streams: []release.Raw{{Chunk: uint32(chunk), Root: root}}},
		Confirm: release.Confirm{Contact: true, Seconds: 60}}
	for _, f := range change {
		f(r.m)
	}
	r.envelope = p.sign(t, manifest.KindManifest, r.m.Encode, p.releases...)
	return r
}

// nativeServer answers the native wire from memory, and can be told to misbehave.
type nativeServer struct {
	t      testing.TB
	device string
	keys   native.Keys
	run    digest.SHA256
	clock  *VirtualClock
	latest []byte            // key list
	first  map[uint32][]byte // by generation: the list that began it
	trust  *release.Trust
	offer  *nativeRelease
	files  map[[32]byte][]byte

	nonce          uint64
	cancel, revert uint32
	retry          []byte
	down           bool
	comeBack       uint32

	polls, fetched int
	carried        int // bytes of every answer that were read
	requests       []string
	reports        []native.Report
	// turn is called before a poll is answered.
	turn func()
	// mangle changes an answer before it is sent.
	mangle func(r device.Request, a *nativeAnswer)
}

func newNativeServer(t testing.TB, b *Native) *nativeServer {
	s := &nativeServer{t: t, device: b.Device, first: map[uint32][]byte{}, files: map[[32]byte][]byte{}, comeBack: 60}
	s.keys.Derive(&b.Secret, &s.run)
	return s
}

func (s *nativeServer) mac() *native.SoftMAC { return &native.SoftMAC{Keys: &s.keys, Run: &s.run} }

func (s *nativeServer) put(r *nativeRelease) {
	s.offer = r
	if r != nil {
		s.files[r.file] = r.stream
	}
}

type nativeAnswer struct {
	head device.Head
	body []byte
	end  error // instead of an end of the body
	read int
	most int    // bytes a read; 0: as many as fit
	slow uint64 // ms a read
	fail bool   // there is no answer
	more bool   // the body never ends
	s    *nativeServer
	data bool // of a stream
}

func (a *nativeAnswer) Head() device.Head { return a.head }
func (a *nativeAnswer) Close() error      { return nil }
func (a *nativeAnswer) Read(p []byte) (int, bool, error) {
	if a.most > 0 && len(p) > a.most {
		p = p[:a.most]
	}
	a.s.clock.Now += a.slow
	n := copy(p, a.body[a.read:])
	a.read += n
	if a.data {
		a.s.fetched += n
	}
	if a.more && n == 0 {
		n = len(p)
		clear(p)
	}
	a.s.carried += n
	if a.read < len(a.body) {
		return n, false, nil
	}
	if a.more {
		return n, false, nil
	}
	return n, a.end == nil, a.end
}

func (s *nativeServer) Do(_ context.Context, r device.Request) (Answer, error) {
	s.clock.Now += 5 // ms
	if s.down {
		return nil, errors.New("down")
	}
	target := string(r.Target)
	s.requests = append(s.requests, r.Method+" "+target)
	a := &nativeAnswer{s: s, head: device.Head{Status: 200}}
	path, _, _ := strings.Cut(target, "?")
	switch {
	case path == "/r1/poll":
		a.body = s.poll(r.Body)
	case path == "/r1/report":
		a.body = s.report(r.Body)
	case path == "/r1/keylists/latest":
		a.body = s.latest
	case strings.HasPrefix(path, "/r1/keylists/"):
		var g uint32
		if _, err := fmt.Sscanf(path, "/r1/keylists/%d", &g); err == nil {
			a.body = s.first[g]
		}
	case strings.HasPrefix(path, "/r1/manifests/"):
		if s.offer != nil && path == "/r1/manifests/"+hex.EncodeToString(sum(s.offer.envelope)) {
			a.body = s.offer.envelope
		}
	case strings.HasPrefix(path, "/r1/streams/"):
		for d, f := range s.files {
			if path == "/r1/streams/"+hex.EncodeToString(d[:]) {
				a.body, a.data = f, true
			}
		}
		if r.Ranged && a.body != nil {
			to := min(int(r.To), len(a.body)-1)
			a.head = device.Head{Status: 206, From: r.From, To: uint32(to), Total: uint32(len(a.body))}
			a.body = a.body[r.From : to+1]
		}
	}
	if a.body == nil {
		a.head = device.Head{Status: 404}
	}
	if s.mangle != nil {
		a.body = bytes.Clone(a.body)
		s.mangle(r, a)
	}
	if a.fail {
		return nil, errors.New("no answer")
	}
	return a, nil
}

func sum(p []byte) []byte {
	d := sha256.Sum256(p)
	return d[:]
}

func (s *nativeServer) poll(body []byte) []byte {
	var m native.Poll
	if m.Decode(body, s.mac()) != 0 {
		return nil
	}
	s.polls++
	if s.turn != nil {
		s.turn()
	}
	a := native.Answer{Device: []byte(s.device), Random: m.Random, Nonce: m.Nonce, Highest: s.nonce, ComeBack: s.comeBack,
		Cancel: s.cancel, Revert: s.revert, Retry: s.retry}
	if s.trust != nil {
		a.ListVersion, a.ListGeneration = s.trust.Version, s.trust.Generation
	}
	if m.Nonce > s.nonce {
		s.nonce = m.Nonce
		if r := s.offer; r != nil {
			a.HasOffer = true
			a.Offer = native.Offer{Epoch: r.m.Epoch, Sequence: r.m.Sequence, Manifest: sum(r.envelope), ManifestLength: uint32(len(r.envelope)),
				Stream: r.file[:], Chunk: r.m.Image.Streams[0].Chunk, FileLength: uint64(len(r.stream))}
		}
	}
	out, err := a.Encode(make([]byte, native.MaxBody), s.mac())
	if err != 0 {
		s.t.Fatal(err)
	}
	return out
}

func (s *nativeServer) report(body []byte) []byte {
	var m native.Report
	if m.Decode(body, s.mac()) != 0 || m.Nonce <= s.nonce {
		return nil
	}
	s.nonce = m.Nonce
	m.Digest, m.Device = bytes.Clone(m.Digest), nil
	s.reports = append(s.reports, m)
	a := native.Ack{Device: []byte(s.device), Nonce: m.Nonce, Boot: m.Boot, Number: m.Number}
	out, err := a.Encode(make([]byte, native.MaxBody), s.mac())
	if err != 0 {
		s.t.Fatal(err)
	}
	return out
}

func (s *nativeServer) said(state native.State, r device.Reason) bool {
	for _, m := range s.reports {
		if m.State == state && device.Reason(m.Reason) == r {
			return true
		}
	}
	return false
}
