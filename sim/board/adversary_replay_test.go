package board

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
)

var errPart = errors.New("the connection broke")

func hexOf(p []byte) string { return hex.EncodeToString(p) }

// tape is all that went over a network, in order.
type tape struct {
	inner  Transport
	path   []string
	answer [][]byte
	head   []device.Head
}

func (r *tape) Do(ctx context.Context, req device.Request) (Answer, error) {
	a, err := r.inner.Do(ctx, req)
	if n, ok := a.(*nativeAnswer); ok && err == nil {
		path, _, _ := strings.Cut(string(req.Target), "?")
		r.path, r.answer, r.head = append(r.path, path), append(r.answer, bytes.Clone(n.body)), append(r.head, n.head)
	}
	return a, err
}

// player answers from a tape: the next recorded answer on the same path, round and
// round; for a part of a stream the one that has the part that is asked for.
type player struct {
	*tape
	s    *nativeServer
	at   map[string]int
	said int
}

func (p *player) Do(_ context.Context, req device.Request) (Answer, error) {
	p.s.clock.Now += 5
	path, _, _ := strings.Cut(string(req.Target), "?")
	for range p.path {
		i := p.at[path] % len(p.path)
		p.at[path] = i + 1
		if p.path[i] == path && (!req.Ranged || p.head[i].From == req.From) {
			p.said++
			return &nativeAnswer{s: p.s, head: p.head[i], body: p.answer[i]}, nil
		}
	}
	return nil, errors.New("not on the tape")
}

// A whole session, recorded and played to a device that lost its state and its
// clock and was flashed with the old image again: random bits make the old answers
// none. Where a chip has no random bits they are the same ones: that is what they
// are for.
func TestReplayedSession(t *testing.T) {
	for _, random := range []bool{true, false} {
		w, g, b, c := adversaryWorld(t)
		o := w.watch(g, b)
		rec := &tape{inner: w.s}
		run := func(tr Transport, seed uint64) {
			t.Helper()
			w.clock.Now = 0
			app := w.app(0)
			app.Transport, app.Clock, app.Seed = tr, &w.clock, seed
			app.Stop = func() bool {
				_, done := w.saw(device.EventConfirmed, 0)
				return done || w.clock.Now > 3_600_000
			}
			if err := w.b.Run(context.Background(), boot.ResetPowerOn, app); err != nil {
				t.Fatal(err)
			}
			o.look()
		}
		run(rec, 1)
		w.targetIs(b.image)
		// The same board, as it was before it ever spoke.
		fresh := newNativeWorld(t, g, image(t, 8192, "A", BehaveOK))
		w.b = fresh.b
		w.forget()
		o = w.watch(g, b)
		seed := uint64(1)
		if random {
			seed = 2
		}
		play := &player{tape: rec, s: w.s, at: map[string]int{}}
		run(play, seed)
		_, taken := w.saw(device.EventConfirmed, 0)
		if play.said == 0 {
			t.Fatal("nothing was played")
		}
		if random == taken {
			t.Errorf("random bits %v: replayed answers taken %v", random, taken)
		}
		if !random {
			continue
		}
		if _, unreachable := w.reasons(); !unreachable || o.erases != 0 {
			t.Errorf("unreachable %v, %d erases", unreachable, o.erases)
		}
		// The network lets the server through again, which has C by now.
		o.signed = [][]byte{c.image}
		w.s.put(c)
		w.hours(2, boot.ResetPowerOn, o, at(device.EventConfirmed))
		w.targetIs(c.image)
	}
}

// A device that lost its state goes on: above the nonce that the server knows, with
// the key list that it is given again. Its floors are gone; those of the list hold.
func TestLostState(t *testing.T) {
	p := newTrustees(t, 1, 1)
	w, g := trusting(t, p)
	w.list(p.roots...)
	b := p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 5, g.chunk)
	if !w.takes(g, b) {
		t.Fatal("not taken")
	}
	p.list.Version, p.list.Products[0].Floor = 2, 3
	w.list(p.roots...)
	table, err := w.b.Table()
	if err != nil {
		t.Fatal(err)
	}
	part := table.Find(esp32.TypeRunnel, esp32.SubtypeState)
	if err := w.b.Chip.Load(part.Offset, bytes.Repeat([]byte{0xFF}, int(part.Size))); err != nil {
		t.Fatal(err)
	}
	w.s.nonce += 1 << 40 // far above what a new device would count to
	w.refuses(g, b, device.ReasonSecurity)
	if w.trusts() != 2 || w.run != 1 {
		t.Fatalf("list %d is held, slot %d runs", w.trusts(), w.run)
	}
	c := p.release(t, image(t, g.imgSize, "C", BehaveOK), "C", 4, g.chunk)
	w.refuses(g, c, device.ReasonSecurity)
	c.m.SecurityVersion = 3
	c.envelope = p.sign(t, manifest.KindManifest, c.m.Encode, p.releases...)
	if !w.takes(g, c) {
		t.Error("a release at the list's floor was refused")
	}
}

// A network that garbles each hash that a resume rests on: nothing in flash is given
// up on its word.
func TestGarbledResume(t *testing.T) {
	w, g, b, _ := adversaryWorld(t)
	o := w.watch(g, b)
	w.hours(1, boot.ResetPowerOn, o, past(12288))
	w.forget()
	o.erases = 0
	garbled := 0
	w.s.mangle = func(r device.Request, a *nativeAnswer) {
		if a.data && r.From%1056 == 1024 {
			garbled++
			a.body[3] ^= 1
		}
	}
	w.hours(2, boot.ResetPowerOn, o, at(device.EventConfirmed))
	w.targetIs(b.image)
	if garbled == 0 || o.erases > 3 {
		t.Errorf("%d hashes garbled, %d erases of the target", garbled, o.erases)
	}
	if _, over := w.saw(device.EventStartOver, device.ReasonDamaged); over {
		t.Error("flash was blamed")
	}
}
