//go:build tinygo

package main

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// What the updater is handed in interfaces: types without fields, whose methods know
// the one variable that they are about. TinyGo links a description of all fields of what
// is in an interface, down to the last type that they lead to. What is handed over is a
// nil pointer: methods of the value would be methods of the pointer too, and each call
// through an interface would compare with both types.
type (
	scheme struct{} // records
	check  struct{} // image
	keeper struct{} // store
	events struct{} // teller
	macs   struct{} // mac
)

func (*scheme) Load() error                        { return records.Load() }
func (*scheme) Running() boot.Slot                 { return records.Running() }
func (*scheme) State(s boot.Slot) boot.RecordState { return records.State(s) }
func (*scheme) Step(g boot.Goal, s boot.Slot) (bool, error) {
	return records.Step(g, s)
}

func (*check) Begin(chip uint16, limit uint32, h *digest.SHA256) { image.Begin(chip, limit, h) }
func (*check) Write(p []byte) error                              { return image.Write(p) }
func (*check) End() error                                        { return image.End() }

func (*keeper) Load(r *state.Record, buf []byte) error         { return store.Load(r, buf) }
func (*keeper) Save(r *state.Record, buf []byte) (bool, error) { return store.Save(r, buf) }

func (*events) Event(e device.Event) { teller.Event(e) }

func (*macs) Begin(m native.Message) { mac.Begin(m) }
func (*macs) Write(p []byte)         { mac.Write(p) }
func (*macs) Sum(out []byte)         { mac.Sum(out) }
func (*macs) Is(sum []byte) bool     { return mac.Is(sum) }
