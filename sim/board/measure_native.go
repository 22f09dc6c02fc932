package board

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"runtime"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/sim/nor"
)

// SignedStream is a release for a measurement: a manifest for the product and the
// hardware of Native, and the raw stream that it names, of chunks of 1,024 bytes.
type SignedStream struct {
	Native   *Native
	Envelope []byte
	File     []byte
}

// AllocsPerRecord is AllocsPerChunk on the native wire: what the updater itself
// allocates for one record, from its first byte to its chunk being read back from
// flash. The stream has 64 records or more.
func AllocsPerRecord(s SignedStream) (float64, error) {
	return least(func() (float64, error) { return allocsPerRecord(s) })
}

func allocsPerRecord(s SignedStream) (float64, error) {
	const chunkSize = 1024
	built := *s.Native
	built.Roots = nil // it believes the answer's MAC: no signature check is in the figure
	digest, manifestDigest := sha256.Sum256(s.File), sha256.Sum256(s.Envelope)
	chip, err := nor.New(nor.Config{})
	if err != nil {
		return 0, err
	}
	b := &Board{Chip: chip}
	old, err := BuildImage(ImageSpec{Size: 4096, Project: "measure", Version: "0"})
	if err != nil {
		return 0, err
	}
	t := DefaultTable()
	if err := b.Write(Layout{Table: t, App: old}); err != nil {
		return 0, err
	}
	app := &App{Clock: &VirtualClock{}, Native: &built}
	r := &run{b: b, app: app, reason: boot.ResetPowerOn, rng: rand.New(rand.NewPCG(1, 1))}
	if err := r.measured(&t, chunkSize); err != nil {
		return 0, err
	}
	// The first records also open the journal; the last ones end in a report.
	const from, to = 8, 56
	var before, after runtime.MemStats
	var unread []byte
	for range 1_000_000 {
		switch need := r.up.Step(); need.Kind {
		case device.NeedSend:
			req := r.up.Request()
			head := device.Head{Status: 200}
			switch {
			case has(req.Target, "poll"):
				var p native.Poll
				if err := p.Decode(req.Body, &r.wires.mac); err != 0 {
					return 0, err
				}
				a := native.Answer{Device: p.Device, Nonce: p.Nonce, Random: p.Random, ComeBack: 60, HasOffer: true,
					Offer: native.Offer{Sequence: 1, Manifest: manifestDigest[:], ManifestLength: uint32(len(s.Envelope)),
						Stream: digest[:], Chunk: chunkSize, FileLength: uint64(len(s.File))}}
				body, merr := a.Encode(make([]byte, native.MaxBody), &r.wires.mac)
				if merr != 0 {
					return 0, merr
				}
				unread = body
			case has(req.Target, "manifests"):
				unread = s.Envelope
			default:
				head = device.Head{Status: 206, From: req.From, To: req.To, Total: uint32(len(s.File))}
				unread = s.File[req.From : req.To+1]
			}
			r.up.Response(head)
		case device.NeedBytes:
			switch at := len(s.File) - len(unread); at {
			case from * (chunkSize + 32):
				if before.Mallocs == 0 {
					runtime.ReadMemStats(&before)
				}
			case to * (chunkSize + 32):
				runtime.ReadMemStats(&after)
				return float64(after.Mallocs-before.Mallocs) / (to - from), nil
			}
			n := copy(r.up.Space(), unread)
			r.up.Fed(n)
			if unread = unread[n:]; len(unread) == 0 {
				r.up.EndOfBody()
			}
		case device.NeedTime:
			if err := r.app.Clock.Wait(context.Background(), uint64(need.Wait)); err != nil {
				return 0, err
			}
		}
	}
	return 0, errors.New("board: the measured download does not get on")
}

// measured sets an updater up without anything around it that allocates.
func (r *run) measured(t *esp32.Table, chunk int) error {
	slots, err := r.b.Slots(t)
	if err != nil {
		return err
	}
	wire, err := r.wires.choose(r.app, flash.Area{})
	if err != nil {
		return err
	}
	kind := V1
	if r.app.Native != nil {
		kind = NativeWire
	}
	c := device.Config{Wire: wire, Buffer: make([]byte, BufferBytes(kind, chunk))}
	c.Port, c.Slots, c.Image, c.Boot, c.ReportEvery = r, slots, &r.check, &r.otad, 1<<30
	od, err := r.b.area(t, esp32.TypeData, esp32.SubtypeOTA)
	if err != nil {
		return err
	}
	if r.otad, err = esp32.NewOTAData(od, 0, 2); err != nil {
		return err
	}
	if c.Journal, err = r.b.area(t, esp32.TypeRunnel, esp32.SubtypeJournal); err != nil {
		return err
	}
	return device.New(&r.up, &c)
}
