package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/esp32"
	nativewire "github.com/runnel-fota/runnel/core/wire/native"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

const (
	tortureV1Product     = "torture/v1"
	tortureNativeProduct = "torture/native"
	tortureHardware      = "board-1" // releasetest's
	tortureImage         = 48 << 10  // bytes
)

// tortureFleet are the boards and the operator.
type tortureFleet struct {
	k      *torture
	failed chan error
	stop   context.CancelFunc // of the operator
	off    context.CancelFunc // of the boards
	quiet  chan struct{}      // closed once the operator is done
	wg     sync.WaitGroup

	newest   [2]atomic.Pointer[[]byte] // images to end on: of v1, of native
	versions [2]int
	arrived  chan string // ids of boards that run the newest
}

func newTortureFleet(ctx context.Context, k *torture) *tortureFleet {
	k.t.Helper()
	n := tortureV1Boards + tortureNativeBoards
	f := &tortureFleet{k: k, failed: make(chan error, n+1), quiet: make(chan struct{}), arrived: make(chan string, 100*n)}
	var boards, operator context.Context
	boards, f.off = context.WithCancel(ctx)
	operator, f.stop = context.WithCancel(ctx)
	k.t.Cleanup(func() { f.stop(); f.off(); f.wg.Wait() })
	c, err := k.client(ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	list := releasetest.List(1, tortureNativeProduct)
	if _, _, err := c.PublishKeyList(ctx, releasetest.SealList(k.t, list)); err != nil {
		k.t.Fatal(err)
	}
	trust, err := release.TrustRoots(1, list.M, list.Roots...)
	if err != nil {
		k.t.Fatal(err)
	}
	for i := range n {
		id, native := fmt.Sprintf("board-%d", i), i >= tortureV1Boards
		secret := sha256.Sum256([]byte(id))
		if native {
			_, err = c.AddNativeDevice(ctx, id, tortureNativeProduct, hex.EncodeToString(secret[:]), "")
		} else {
			_, err = c.AddDevice(ctx, id, tortureV1Product, hex.EncodeToString(secret[:]))
		}
		if err != nil {
			k.t.Fatal(err)
		}
		k.devices[id] = true
		b := &tortureBoard{f: f, id: id, secret: secret, native: native}
		if err := b.make(trust); err != nil {
			k.t.Fatal(err)
		}
		f.wg.Go(func() { b.live(boards) })
	}
	f.wg.Go(func() {
		defer close(f.quiet)
		if err := f.operate(operator); err != nil {
			f.failed <- fmt.Errorf("operator: %w", err)
		}
	})
	return f
}

// finish lets the operator publish a last release each, and waits until every board runs it.
func (f *tortureFleet) finish(ctx context.Context) {
	f.k.t.Helper()
	f.stop()
	<-f.quiet
	for i := range f.newest {
		image, err := f.push(ctx, i == 1, false)
		if err != nil {
			f.k.t.Fatal(err)
		}
		f.newest[i].Store(&image)
	}
	missing := map[string]bool{}
	for i := range tortureV1Boards + tortureNativeBoards {
		missing[fmt.Sprintf("board-%d", i)] = true
	}
	for len(missing) > 0 {
		select {
		case id := <-f.arrived:
			delete(missing, id)
		case err := <-f.failed:
			f.k.t.Fatal(err)
		case <-ctx.Done():
			f.k.t.Fatalf("these boards do not run the newest release: %v\n%s", missing, f.k.said())
		}
	}
	f.off()
	f.wg.Wait()
}

// operate publishes, adds devices and asks.
func (f *tortureFleet) operate(ctx context.Context) error {
	for n := 0; ctx.Err() == nil; n++ {
		f.k.mu.Lock()
		enough := f.k.pushed >= pushesARound
		f.k.mu.Unlock()
		var err error
		switch what := f.k.between(0, 9); {
		case what < 5 && !enough:
			_, err = f.push(ctx, what%2 == 1, what == 0)
		case what < 7:
			err = f.addDevice(ctx, n)
		default:
			err = f.ask(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// broke: the server was killed, or is not there yet. Whatever else it says counts.
func broke(err error) bool {
	var e *fleet.Error
	return err != nil && (!errors.As(err, &e) || e.Code == fleet.CodeInternal && strings.Contains(err.Error(), "EOF") || e.Code == fleet.CodeBusy)
}

// push publishes the next version, again and again until it is acknowledged; byClient lets
// the command do it, which is killed now and then.
func (f *tortureFleet) push(ctx context.Context, native, byClient bool) (image []byte, err error) {
	k := f.k
	which, product := 0, tortureV1Product
	if native {
		which, product = 1, tortureNativeProduct
	}
	f.versions[which]++
	version := fmt.Sprintf("1.%d", f.versions[which])
	if image, err = board.BuildImage(board.ImageSpec{Size: tortureImage + 16*f.versions[which], Chip: esp32.ChipESP32, Project: "torture", Version: version, Seed: uint64(f.versions[which])}); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(image)
	body := image
	if native {
		m := releasetest.Manifest(k.t, product, version, image)
		m.Sequence = uint32(f.versions[which])
		body = releasetest.File(k.t, nil, m, image, nil)
	}
	k.mu.Lock()
	k.pushed++
	k.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var digest string
		if byClient {
			digest, err = f.pushByClient(ctx, product, version, native, body)
		} else {
			digest, err = f.pushOnce(ctx, product, version, native, body)
		}
		if err == nil && digest != hex.EncodeToString(sum[:]) {
			err = fleet.Errorf(fleet.CodeConflict, "%s %s was pushed with %x, and is %s", product, version, sum, digest)
		}
		if err == nil {
			k.acknowledged(product, version, digest)
			return image, nil
		}
		if !broke(err) {
			return nil, err
		}
		byClient = false
	}
}

func (f *tortureFleet) pushOnce(ctx context.Context, product, version string, native bool, body []byte) (string, error) {
	c, err := f.k.client(ctx)
	if err != nil {
		return "", err
	}
	f.k.tick()
	defer f.k.tick()
	src := &ticking{bytes.NewReader(body), f.k}
	if native {
		p, err := c.PublishRelease(ctx, src, int64(len(body)), fleet.Publication{})
		return p.Release.Digest, err
	}
	p, err := c.Publish(ctx, product, version, 1024, "", src, int64(len(body)), fleet.Publication{})
	return p.Release.Digest, err
}

// ticking lets the server be killed in the middle of an upload.
type ticking struct {
	r *bytes.Reader
	k *torture
}

func (t *ticking) Read(p []byte) (int, error) {
	t.k.tick()
	return t.r.Read(p[:min(len(p), 8<<10)])
}

var errClientKilled = errors.New("the client was killed, or its server")

// pushByClient runs 'runnel push', and kills it at some time: then nobody was told anything.
func (f *tortureFleet) pushByClient(ctx context.Context, product, version string, native bool, body []byte) (string, error) {
	url, _, err := f.k.server(ctx)
	if err != nil {
		return "", err
	}
	file := filepath.Join(f.k.dir, "push.bin")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return "", err
	}
	args := []string{"push", file, "--json", "--server", url}
	if !native {
		args = append(args, "--product", product, "--version", version)
	}
	cmd := exec.CommandContext(ctx, f.k.bin, args...)
	cmd.Env = append(os.Environ(), f.k.tokenOf())
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var ended atomic.Bool
	f.k.after(f.k.between(1, 100), func() {
		if !ended.Load() { // its number may be another's by then
			_ = cmd.Process.Kill()
		}
	})
	err = cmd.Wait()
	ended.Store(true)
	if err != nil {
		f.k.mu.Lock()
		f.k.clientsKilled++
		f.k.mu.Unlock()
		return "", errClientKilled
	}
	m := regexp.MustCompile(`[0-9a-f]{64}`).FindString(out.String())
	return m, nil
}

func (f *tortureFleet) addDevice(ctx context.Context, n int) error {
	c, err := f.k.client(ctx)
	if err != nil {
		return err
	}
	f.k.tick()
	defer f.k.tick()
	id := fmt.Sprintf("other-%d", n)
	switch _, err := c.AddDevice(ctx, id, tortureV1Product, strings.Repeat("42", 32)); {
	case err == nil:
		f.k.mu.Lock()
		f.k.devices[id] = true
		f.k.mu.Unlock()
	case !broke(err):
		return err
	}
	return nil
}

func (f *tortureFleet) ask(ctx context.Context) error {
	c, err := f.k.client(ctx)
	if err != nil {
		return err
	}
	f.k.tick()
	defer f.k.tick()
	if _, err = c.Releases(ctx, "", ""); err == nil {
		_, _, err = c.Logs(ctx, "", 100)
	}
	if broke(err) {
		return nil
	}
	return err
}

// tortureBoard is a board, of either wire.
type tortureBoard struct {
	f      *tortureFleet
	id     string
	secret [32]byte
	native bool
	b      *board.Board
	app    board.App
	boot   board.Boot

	url  string
	http *devicehttp.Client
}

// fastClock is a board's time, which goes faster than the machine's.
type fastClock struct{ *board.RealClock }

const fastTimes = 20

func (c fastClock) Millis() uint64 { return c.RealClock.Millis() * fastTimes }
func (c fastClock) Wait(ctx context.Context, ms uint64) error {
	return c.RealClock.Wait(ctx, (ms+fastTimes-1)/fastTimes)
}

func (t *tortureBoard) make(trust *release.Trust) error {
	image, err := board.BuildImage(board.ImageSpec{Size: tortureImage, Chip: esp32.ChipESP32, Project: "torture", Version: "1.0"})
	if err != nil {
		return err
	}
	chip, err := nor.New(nor.Config{})
	if err != nil {
		return err
	}
	t.b = &board.Board{Chip: chip, ChipID: esp32.ChipESP32}
	t.app = board.App{Transport: t, Identity: v1.Identity{ID: t.id, Signed: true, Key: t.secret[:]}, Clock: fastClock{board.NewRealClock()},
		PollMillis: 1000, Seed: uint64(t.secret[0]), OnStart: func(_ *device.Updater, b board.Boot) { t.boot = b }, OnEvent: t.event}
	if t.native {
		t.app.Native = &board.Native{Device: t.id, Product: tortureNativeProduct, Hardware: tortureHardware, Secret: t.secret, Roots: trust.Baked(),
			MinPollMillis: 500, MaxPollMillis: 1000}
	}
	return t.b.Write(board.Layout{Table: board.DefaultTable(), App: image})
}

func (t *tortureBoard) live(ctx context.Context) {
	if err := t.b.Run(ctx, boot.ResetPowerOn, t.app); err != nil && ctx.Err() == nil {
		t.f.failed <- fmt.Errorf("%s: %w", t.id, err)
	}
}

func (t *tortureBoard) event(e device.Event) {
	switch e.Kind {
	case device.EventConfirmed:
		t.f.k.mu.Lock()
		t.f.k.confirmed++
		t.f.k.mu.Unlock()
	case device.EventUpToDate:
		which := 0
		if t.native {
			which = 1
		}
		if want := t.f.newest[which].Load(); want != nil && t.runs(*want) {
			select {
			case t.f.arrived <- t.id:
			default:
			}
		}
	}
}

// runs says whether the running slot holds the image.
func (t *tortureBoard) runs(image []byte) bool {
	table, err := t.b.Table()
	if err != nil {
		return false
	}
	p := table.Find(esp32.TypeApp, esp32.SubtypeOTA0+uint8(t.boot.Running))
	return p != nil && bytes.HasPrefix(t.b.Chip.Raw()[p.Offset:], image)
}

// Do carries a request to where the server is now, and notes what it acknowledges.
func (t *tortureBoard) Do(ctx context.Context, r device.Request) (board.Answer, error) {
	k := t.f.k
	url, _, err := k.server(ctx)
	if err != nil {
		return nil, err
	}
	if t.http == nil || t.url != url {
		if t.http != nil {
			t.http.Close()
		}
		if t.http, err = k.device(ctx); err != nil {
			return nil, err
		}
		t.url = url
	}
	k.tick()
	a, err := t.http.Do(ctx, &r)
	k.tick()
	if err != nil {
		return nil, err
	}
	if a.Head().Status == 200 && r.Method == "POST" {
		if err := t.acknowledged(r); err != nil {
			t.f.failed <- fmt.Errorf("%s: %w", t.id, err)
		}
	}
	return a, nil
}

var newVersion = regexp.MustCompile(`"boot_status":"success".*"new_version":"([^"]*)"`)

// acknowledged notes a report, and the version that it confirms.
func (t *tortureBoard) acknowledged(r device.Request) (err error) {
	var nonce uint64
	var name *reportName
	version := ""
	switch target := string(r.Target); {
	case target == v1.StatusPath:
		if nonce, err = strconv.ParseUint(string(r.Nonce), 10, 64); err != nil {
			return err
		}
		if m := newVersion.FindSubmatch(r.Body); m != nil {
			version = string(m[1])
		}
	case t.native && strings.HasSuffix(target, "/report"):
		var keys nativewire.Keys
		var run digest.SHA256
		keys.Derive(&t.secret, &run)
		var m nativewire.Report
		if e := m.Decode(bytes.Clone(r.Body), &nativewire.SoftMAC{Keys: &keys, Run: &run}); e != 0 {
			return e
		}
		name = &reportName{m.Boot, m.Number}
		if m.State == nativewire.StateConfirmed && m.Sequence > 0 {
			version = fmt.Sprintf("1.%d", m.Sequence)
		}
	default:
		return nil
	}
	k := t.f.k
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reports++
	k.nonces[t.id] = max(k.nonces[t.id], nonce)
	if name != nil {
		k.names[t.id] = *name
	}
	if version != "" && version != "1.0" {
		if k.done[t.id] == nil {
			k.done[t.id] = map[string]bool{}
		}
		k.done[t.id][version] = true
	}
	return nil
}
