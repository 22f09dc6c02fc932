package board

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/sim/nor"
)

// AllocsPerChunk counts what the updater itself allocates for one chunk, from its
// request to its bytes being read back from flash: the answers are made
// beforehand, so that no network and no server is in the figure.
func AllocsPerChunk() (float64, error) { return least(allocsPerChunk) }

// least is the least of a few measurements. The runtime counts for the whole
// program: a thread that it starts meanwhile, or another goroutine, can only add to
// the updater's allocations, which are the same each time.
func least(measure func() (float64, error)) (least float64, err error) {
	for try := range 5 {
		n, err := measure()
		if err != nil {
			return 0, err
		}
		if try == 0 || n < least {
			least = n
		}
		if least == 0 {
			break
		}
	}
	return least, nil
}

func allocsPerChunk() (float64, error) {
	const chunkSize, chunks = 1024, 64
	key := make([]byte, 32)
	img, err := BuildImage(ImageSpec{Size: chunkSize * chunks, Project: "measure", Version: "1"})
	if err != nil {
		return 0, err
	}
	answers := make([][]byte, chunks)
	for i := range answers {
		data := img[i*chunkSize : (i+1)*chunkSize]
		m := hmac.New(sha256.New, key)
		m.Write(data)
		answers[i] = fmt.Appendf(nil, `{"chunk_number":%d,"data":"%s","mac":"%s","size":%d}`,
			i, base64.StdEncoding.EncodeToString(data), hex.EncodeToString(m.Sum(nil)), len(data))
	}
	sum := sha256.Sum256(img)
	manifest := fmt.Appendf(nil, `{"fota":{"manifest":{"version":"2","size":%d,"hash":"%x","chunk_size":%d,"uploaded_at":1}}}`, len(img), sum, chunkSize)

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
	app := &App{Clock: &VirtualClock{}, Identity: v1.Identity{ID: "measure", Signed: true, Key: key}}
	r := &run{b: b, app: app, reason: boot.ResetPowerOn, rng: rand.New(rand.NewPCG(1, 1))}
	if err := r.measured(&t, chunkSize); err != nil {
		return 0, err
	}
	// The first chunks also open the journal; the last ones end in a report.
	const from, to = 8, 56
	var before, after runtime.MemStats
	served := 0
	var unread []byte
	for range 1_000_000 {
		switch need := r.up.Step(); need.Kind {
		case device.NeedSend:
			req := r.up.Request()
			answer := manifest
			switch {
			case has(req.Target, "rollback"):
				answer = []byte(`{"rollback_required":false}`)
			case has(req.Target, "chunk_number"):
				if served == from {
					runtime.ReadMemStats(&before)
				}
				if served == to {
					runtime.ReadMemStats(&after)
					return float64(after.Mallocs-before.Mallocs) / (to - from), nil
				}
				answer = answers[served]
				served++
			}
			r.up.Response(device.Head{Status: 200})
			unread = answer
		case device.NeedBytes:
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

func has(target []byte, word string) bool {
	for i := 0; i+len(word) <= len(target); i++ {
		if string(target[i:i+len(word)]) == word {
			return true
		}
	}
	return false
}
