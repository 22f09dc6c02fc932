package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/factory"
	"github.com/runnel-fota/runnel/internal/bridge"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/testenv"
	"github.com/runnel-fota/runnel/internal/tinygo"
	"github.com/runnel-fota/runnel/sim/qemu"
)

// emulatedSeed of the noise on the line.
const emulatedSeed = 11

// The whole way: keys, a signed release in two builds, a real server, the bridge, and
// firmware inside an emulated chip with 16 KiB of RAM, whose line loses, doubles and
// damages bytes, and whose power goes in the middle.
func TestEmulatedBoard(t *testing.T) {
	for _, p := range append([]string{qemu.Program}, tinygo.Programs...) {
		testenv.Tool(t, p)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	builder, err := qemu.NewBuilder(ctx, testenv.Root())
	if err != nil {
		t.Fatal(err)
	}
	kit, err := qemu.BuildKit(ctx, builder, "signed")
	if err != nil {
		t.Fatal(err)
	}

	bin, dir := buildRunnel(t), t.TempDir()
	server := startServer(t, bin, t.TempDir())
	runnel := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(bin, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "RUNNEL_SERVER="+server.url, "RUNNEL_TOKEN="+server.token)
		var complaint strings.Builder
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("runnel %s: %v\n%s", strings.Join(args, " "), err, &complaint)
		}
		return string(out)
	}
	runnel("keys", "init", "keys", "--product", "acme/pump", "--no-passphrase")
	runnel("keys", "publish", "keys")
	runnel("devices", "add", "pump-7", "--product", "acme/pump", "--new-native-key", "-o", "pump-7.key")
	runnel("board", "page", "--id", "pump-7", "--key-file", "pump-7.key", "--product", "acme/pump", "--hardware", "nrf51",
		"--root", "keys/root.pub", "-o", "pump-7.page")
	var builds [2][]byte
	for slot, name := range []string{"b0", "b1"} {
		if builds[slot], err = kit.Image(slot, "1.1.0", qemu.Healthy); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".bin"), builds[slot], 0o600); err != nil {
			t.Fatal(err)
		}
		runnel("sign", name+".bin", "--slot", []string{"0", "1"}[slot], "--format", "raw", "--hardware", "nrf51", "--product", "acme/pump",
			"--version", "1.1.0", "--sequence", "1", "--key", "keys/release.key", "--yes", "-o", name+".runnel")
	}
	runnel("push", "b0.runnel", "b1.runnel")

	chip := emulatedChip(t, kit, filepath.Join(dir, "pump-7.page"))
	http, err := devicehttp.New(server.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d", emulatedSeed)
	noise := &noise{rng: rand.New(rand.NewPCG(emulatedSeed, 1))}
	cuts, tried, confirmed := 0, false, false
	for starts := 0; !confirmed; starts++ {
		if starts > 8 {
			t.Fatal("no end after 8 starts")
		}
		start, stop := context.WithCancel(ctx)
		chunks := 0
		err := emulatedStart(start, chip, noise, bridge.Options{Fetch: bridge.Over(http.Do), OnEvent: func(e bridge.Event) {
			if e.Kind != bridge.KindSaid {
				return
			}
			tried = tried || e.Said.Kind == device.EventTrial
			if tried && e.Said.Kind == device.EventReported { // that it is confirmed
				confirmed = true
				stop()
			}
		}}, func() {
			if chunks++; cuts == 0 && chunks == 30 {
				cuts++
				stop()
			}
		})
		stop()
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, qemu.ErrReset) {
			t.Fatal(err)
		}
		if errors.Is(err, context.Canceled) {
			chip.PowerCut()
		}
	}
	if got := chip.Flash[qemu.SlotAt[1]:][:len(builds[1])]; string(got) != string(builds[1]) {
		t.Error("slot 1 does not hold the release")
	}
	if said := runnel("device", "pump-7"); !strings.Contains(said, "1.1.0 confirmed") {
		t.Errorf("the server says %s", said)
	}
	t.Logf("%d power cuts, %d bytes of %d hurt on the line", cuts, noise.hurt, noise.bytes)
	if cuts == 0 || noise.hurt == 0 {
		t.Error("nothing went wrong on the way: the test shows nothing")
	}
}

// emulatedChip is the chip as it leaves the factory.
func emulatedChip(t *testing.T, kit *qemu.Kit, pageFile string) *qemu.Chip {
	t.Helper()
	text, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	var page factory.Page
	if e := page.Parse(text); e != 0 {
		t.Fatal(e)
	}
	image, err := kit.Image(0, "1.0.0", qemu.Healthy)
	if err != nil {
		t.Fatal(err)
	}
	flash, err := kit.Flash(image, &page)
	if err != nil {
		t.Fatal(err)
	}
	return &qemu.Chip{Board: qemu.Microbit, Flash: flash}
}

// emulatedStart is one start of the chip on a bridge; chunk is called for each KiB that
// goes to it.
func emulatedStart(ctx context.Context, chip *qemu.Chip, n *noise, o bridge.Options, chunk func()) error {
	r, err := chip.Start(ctx, false)
	if err != nil {
		return err
	}
	defer r.Kill()
	served := make(chan struct{})
	go func() {
		defer close(served)
		// It ends with the line, which is cut in the middle: its error says that.
		_ = bridge.Serve(ctx, &noisyLine{ReadWriteCloser: r.Serial, n: n, chunk: chunk}, o)
	}()
	end := r.Wait(ctx)
	if !errors.Is(end, qemu.ErrDied) {
		if err := r.Off(); err != nil {
			return err
		}
	}
	r.Kill()
	<-served
	return end
}

// noise hurts about one byte in 3,000.
type noise struct {
	mu          sync.Mutex
	rng         *rand.Rand
	bytes, hurt int
}

func (n *noise) through(p []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]byte, 0, len(p)+4)
	for _, b := range p {
		n.bytes++
		switch n.rng.IntN(9000) {
		case 0: // lost
			n.hurt++
		case 1:
			n.hurt++
			out = append(out, b, b)
		case 2:
			n.hurt++
			out = append(out, b^byte(1+n.rng.IntN(255)))
		default:
			out = append(out, b)
		}
	}
	return out
}

type noisyLine struct {
	io.ReadWriteCloser
	n     *noise
	chunk func()
	sent  int
}

func (l *noisyLine) Read(p []byte) (int, error) {
	buf := make([]byte, max(1, len(p)/2)) // noise may double bytes
	for {
		n, err := l.ReadWriteCloser.Read(buf)
		out := l.n.through(buf[:n])
		if len(out) > 0 || err != nil {
			return copy(p, out), err
		}
	}
}

func (l *noisyLine) Write(p []byte) (int, error) {
	if l.sent += len(p); l.sent >= 1024 {
		l.sent -= 1024
		l.chunk()
	}
	_, err := l.ReadWriteCloser.Write(l.n.through(p))
	return len(p), err
}
