package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/esp32"
	nativewire "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/wire/native"
	"github.com/runnel-fota/runnel/release/releasetest"
	"github.com/runnel-fota/runnel/sim/board"
)

const (
	pollsters  = 60
	firstPhase = 7 // devices
	mostPolls  = 20
)

// pollster is what a device says and hears of a rollout, without its flash.
type pollster struct {
	t      *testing.T
	id     string
	secret [32]byte
	keys   nativewire.Keys
	poll   nativewire.Poll
	number uint32
}

func newPollster(t *testing.T, i int) *pollster {
	p := &pollster{t: t, id: fmt.Sprintf("pump-%02d", i)}
	p.secret = sha256.Sum256([]byte(p.id))
	var run digest.SHA256
	p.keys.Derive(&p.secret, &run)
	p.poll = nativewire.Poll{Device: []byte(p.id), Random: []byte("8 random"), Hardware: []byte(tortureHardware), Version: []byte("1.0"), Boot: 1, Envelope: 1400, Chunk: 4096,
		Profile: nativewire.ProfileSigned, SlotCount: 2, HasChip: true, Chip: esp32.ChipESP32}
	p.poll.Slots[0], p.poll.Slots[1] = 1<<20, 1<<20
	return p
}

func (p *pollster) mac() nativewire.MAC {
	return &nativewire.SoftMAC{Keys: &p.keys, Run: new(digest.SHA256)}
}

// post answers the status and the body; 0 where no answer came.
func post(ctx context.Context, url string, body []byte) (int, http.Header, []byte) {
	r, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(body))
	if err != nil {
		panic(err) // our own text
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil, nil
	}
	return res.StatusCode, res.Header, b
}

// ask polls at url until there is an answer, as a device does.
func (p *pollster) ask(ctx context.Context, url string) nativewire.Answer {
	var a nativewire.Answer
	for ctx.Err() == nil {
		p.poll.Nonce++
		body, e := p.poll.Encode(make([]byte, nativewire.MaxBody), p.mac())
		if e != 0 {
			p.t.Error(e)
			return a
		}
		status, _, answer := post(ctx, url+native.PathPoll, body)
		switch status {
		case 0, http.StatusServiceUnavailable:
			continue
		case http.StatusOK:
		default:
			p.t.Errorf("%s: status %d", p.id, status)
			return a
		}
		if e := a.Decode(answer, p.mac(), p.poll.Device, p.poll.Nonce, p.poll.Random); e != 0 {
			p.t.Error(e)
		}
		if a.Highest >= p.poll.Nonce {
			p.t.Errorf("%s: nonce %d was not taken, %d is the highest", p.id, p.poll.Nonce, a.Highest)
		}
		return a
	}
	p.t.Errorf("%s: no answer", p.id)
	return a
}

// confirm reports to every one of urls at once, the same bytes: as one whose network repeats it.
func (p *pollster) confirm(ctx context.Context, image []byte, urls ...string) {
	p.number++
	p.poll.Nonce++
	sum := sha256.Sum256(image)
	m := nativewire.Report{Device: p.poll.Device, Nonce: p.poll.Nonce, Boot: 1, Number: p.number, Epoch: 1, Sequence: 1, Digest: sum[:], State: nativewire.StateConfirmed}
	body, e := m.Encode(make([]byte, nativewire.MaxBody), p.mac())
	if e != 0 {
		p.t.Error(e)
		return
	}
	var wg sync.WaitGroup
	for _, u := range urls {
		wg.Go(func() {
			for ctx.Err() == nil {
				status, _, answer := post(ctx, u+native.PathReport, body)
				if status == 0 || status == http.StatusServiceUnavailable {
					continue
				}
				var a nativewire.Ack
				if status != http.StatusOK {
					p.t.Errorf("%s: report: status %d", p.id, status)
				} else if e := a.Decode(answer, p.mac(), m.Device, m.Nonce, m.Boot, m.Number); e != 0 {
					p.t.Error(e)
				}
				return
			}
		})
	}
	wg.Wait()
	p.poll.Sequence, p.poll.Epoch, p.poll.Version, p.poll.Digest = 1, 1, []byte("1.1"), sum[:]
}

// each runs f for all devices at once and answers those for which it was true.
func each(all []*pollster, f func(i int, p *pollster) bool) (yes []*pollster) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() {
			if f(i, p) {
				mu.Lock()
				yes = append(yes, p)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return yes
}

// A rollout over two servers whose devices poll at either: as many as the first phase takes
// come in, however many ask at once; reports that come twice count once; a pause holds for
// every poll that starts after it was answered, wherever it was said; a server is killed and the
// other steps on; one without a database says so and has devices come back.
func TestReplicasRollout(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var log bytes.Buffer
	var mu sync.Mutex
	s := newReplicaSet(t, 2, &locked{mu: &mu, w: &log}, "")
	defer func() {
		if t.Failed() {
			mu.Lock()
			t.Log(log.String())
			mu.Unlock()
		}
	}()
	operator := func(url string) *client.Client {
		c, err := client.New(url, s.token)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := operator(s.at(0))
	_, _, err := c.PublishKeyList(ctx, releasetest.SealList(t, releasetest.List(1, tortureNativeProduct)))
	if err != nil {
		t.Fatal(err)
	}
	var all []*pollster
	for i := range pollsters {
		p := newPollster(t, i)
		if _, err := operator(s.at(i)).AddNativeDevice(ctx, p.id, tortureNativeProduct, hex.EncodeToString(p.secret[:]), ""); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	image, err := board.BuildImage(board.ImageSpec{Size: tortureImage, Chip: esp32.ChipESP32, Project: "replicas", Version: "1.1"})
	if err != nil {
		t.Fatal(err)
	}
	only := true
	if _, err := c.SetPolicy(ctx, client.PolicyChange{Product: tortureNativeProduct, RolloutsOnly: &only}); err != nil {
		t.Fatal(err)
	}
	m := releasetest.Manifest(t, tortureNativeProduct, "1.1", image)
	m.Sequence = 1
	file := releasetest.File(t, nil, m, image, nil)
	if _, err := operator(s.at(1)).PublishRelease(ctx, bytes.NewReader(file), int64(len(file)), fleet.Publication{}); err != nil {
		t.Fatal(err)
	}
	o, err := c.CreateRollout(ctx, client.NewRollout{Product: tortureNativeProduct, Release: "1.1", Phases: fmt.Sprintf("%d,100%%", firstPhase), Soak: "1s"})
	if err != nil {
		t.Fatal(err)
	}
	await := func(where string, state string, phase int) {
		t.Helper()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			now, err := operator(where).Rollout(ctx, o.ID)
			if err == nil && now.State == state && now.Phase == phase {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("the rollout is %+v, %v; not %s in phase %d", now, err, state, phase)
			}
		}
	}
	await(s.at(0), "running", o.Phase)

	// Everybody asks at once, each time at the other server. Who is judged while the rollout
	// takes a step gets nothing, and is judged anew by the next poll.
	var offered []*pollster
	for round := 0; round < 3 || len(offered) < firstPhase && round < mostPolls; round++ {
		offered = each(all, func(i int, p *pollster) bool { return p.ask(ctx, s.at(i+round)).HasOffer })
	}
	if len(offered) != firstPhase {
		t.Errorf("%d devices were offered the release, the phase takes %d", len(offered), firstPhase)
	}

	// A server dies in mid-rollout; the other goes on.
	_ = s.end(0, syscall.SIGKILL) // says that it was killed
	each(offered[:3], func(_ int, p *pollster) bool { p.confirm(ctx, image, s.at(1)); return true })
	if err := s.start(0); err != nil {
		t.Fatal(err)
	}
	each(offered[3:], func(_ int, p *pollster) bool { p.confirm(ctx, image, s.at(0), s.at(1), s.at(0), s.at(1)); return true })
	await(s.at(1), "running", o.Phase+1)

	// A pause at one server holds at the other, for every poll from its answer on.
	if _, err := operator(s.at(0)).Say(ctx, o.ID, fleet.CommandPause, "look"); err != nil {
		t.Fatal(err)
	}
	rest := slices.DeleteFunc(slices.Clone(all), func(p *pollster) bool { return slices.Contains(offered, p) })
	if got := each(rest, func(i int, p *pollster) bool { return p.ask(ctx, s.at(1)).HasOffer }); len(got) != 0 {
		t.Errorf("%d devices got the release from the other server after the pause", len(got))
	}
	if _, err := operator(s.at(1)).Say(ctx, o.ID, fleet.CommandResume, ""); err != nil {
		t.Fatal(err)
	}
	waiting := rest
	for round := 0; len(waiting) > 0 && round < mostPolls; round++ {
		waiting = each(waiting, func(i int, p *pollster) bool { return !p.ask(ctx, s.at(i+round)).HasOffer })
	}
	if len(waiting) > 0 {
		t.Fatalf("%d of %d devices did not get the release after the rollout went on", len(waiting), len(rest))
	}

	// A server that lost the database has its devices come back, and says so of itself.
	s.each[1].cable.cut()
	p := rest[0]
	p.poll.Nonce++
	body, e := p.poll.Encode(make([]byte, nativewire.MaxBody), p.mac())
	if e != 0 {
		t.Fatal(e)
	}
	status, header, _ := post(ctx, s.at(1)+native.PathPoll, body)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("cut off from the database: status %d, %v", status, header)
	}
	res, err := http.Get(s.at(1) + "/api/v1/health")
	if err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("health: %v %v", res, err)
	}
	if err == nil {
		res.Body.Close()
	}
	each(rest[:10], func(_ int, p *pollster) bool { p.confirm(ctx, image, s.at(0)); return true })
	s.each[1].cable.mend()
	each(rest[10:], func(i int, p *pollster) bool { p.confirm(ctx, image, s.at(i)); return true })
	await(s.at(1), "complete", o.Phase+1)

	// Nothing was done twice.
	for what, q := range map[string]string{
		"an offer of a device":       "SELECT count(*) FROM (SELECT device FROM events WHERE name = 'offer' AND version = '1.1' GROUP BY device HAVING count(*) <> 1) x",
		"a confirmation of a device": "SELECT count(*) FROM (SELECT device FROM events WHERE name = '" + fleet.EventCompleted + "' GROUP BY device HAVING count(*) <> 1) x",
		"a step of the rollout":      "SELECT count(*) FROM (SELECT detail FROM events WHERE name IN ('rollout', 'rollout_failed') GROUP BY detail HAVING count(*) > 1) x",
		"a report":                   fmt.Sprintf("SELECT abs(count(*) - %d) FROM native_reports", pollsters),
		"a deployment":               fmt.Sprintf("SELECT abs(count(*) - %d) FROM deployments WHERE state = 'confirmed' AND rollout IS NOT NULL", pollsters),
	} {
		if n := s.pg.Count(t, s.database, q); n != 0 {
			t.Errorf("%s: %d are there other than once", what, n)
		}
	}
	if n := s.pg.Count(t, s.database, "SELECT count(*) FROM events WHERE name = 'offer' AND version = '1.1'"); n != pollsters {
		t.Errorf("%d offers", n)
	}
}
