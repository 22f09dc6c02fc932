// Command manifest reaches the exported API of core/manifest: a device with one
// buffer for every object, and a trust store in flash.
package main

import (
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

// Two of each interface, chosen at run time; one keeps what it is handed.

type keeper struct{ last [5][]byte }

func (k *keeper) Verify(alg int8, key, sig, head, payload []byte) bool {
	k.last = [5][]byte{key, sig, head, payload}
	board.Output(uint32(alg))
	return board.Bool()
}

// Begin and Step make it a manifest.StepVerifier.
func (k *keeper) Begin(alg int8, key, sig, head, payload []byte) {
	k.last = [5][]byte{key, sig, head, payload}
	board.Output(uint32(alg))
}

func (k *keeper) Step() (done, ok bool) { return board.Bool(), board.Bool() }

func (k *keeper) ReadAt(p []byte, off uint32) error {
	k.last[4] = p
	board.Output(off)
	board.Fill(p)
	return nil
}

type plain struct{}

func (plain) Verify(_ int8, key, sig, head, payload []byte) bool {
	board.Bytes(key)
	board.Bytes(sig)
	board.Bytes(head)
	board.Bytes(payload)
	return board.Bool()
}

func (plain) ReadAt(p []byte, off uint32) error {
	if board.Bool() {
		return manifest.ErrTrust
	}
	board.Fill(p)
	return nil
}

var (
	buffer   [1280]byte
	kept     keeper
	envelope manifest.Envelope
	list     manifest.KeyList
	trust    manifest.Trust
	accept   manifest.Acceptance
	verify   manifest.Verification
	release  manifest.Manifest
	sheet    manifest.Sheet
	head     [manifest.HeadSize]byte
	id       [manifest.KeyIDSize]byte
	store    [manifest.MaxTrust]byte
	facts    manifest.DeviceFacts
	floors   manifest.Floors
)

func verifier() manifest.Verifier {
	if board.Bool() {
		return &kept
	}
	return plain{}
}

func reader() manifest.TrustReader {
	if board.Bool() {
		return &kept
	}
	return plain{}
}

func show(e manifest.Error) {
	if e != 0 {
		board.Text(e.Error())
		board.Output(uint32(e.CBOR()))
	}
}

func main() {
	receive()
	show(trust.Load(reader(), store[:]))
	board.Output(trust.Size())
	trust.Put(store[:])
	keyList()
	receive()
	manifests()
	receive()
	sheets()
}

func receive() {
	board.Fill(buffer[:])
	show(envelope.Parse(buffer[:]))
	kind := manifest.Kind(board.Input())
	board.Text(kind.Label())
	manifest.KeyID(buffer[:manifest.KeySize], &id)
	board.Bytes(manifest.Head(&head, kind, int8(board.Input()), id[:], int(board.Input())))
	show(manifest.CheckKey(buffer[:manifest.KeySize]))
}

func keyList() {
	show(accept.Begin(&envelope, &list, reader()))
	for {
		done, err := accept.Step(verifier())
		show(err)
		if done {
			break
		}
	}
	show(list.Parse(buffer[:]))
	var k manifest.Key
	roots := list.Roots()
	for roots.Next(&k) {
		k.PutRecord(store[:])
	}
	keys := list.Keys()
	for keys.Next(&k) {
		board.Flag(k.Limited())
		board.Flag(k.SignsFor(buffer[:8]))
		names := k.Products()
		board.Bytes(names.Next())
	}
	var p manifest.Product
	products := list.Products()
	for products.Next(&p) {
		board.Output(p.Floor)
	}
	board.Flag(list.Product(buffer[:8], &p))
	n, err := manifest.Compact(store[:], &list, buffer[:8])
	board.Output(uint32(n))
	show(err)
	n, err = manifest.CompactInPlace(buffer[:], &envelope, &list, store[:8])
	board.Output(uint32(n))
	show(err)
}

func count() {
	for {
		done, err := verify.Step(verifier())
		show(err)
		if done {
			return
		}
	}
}

func manifests() {
	show(verify.BeginManifest(&envelope, reader()))
	count()
	show(release.Parse(envelope.Payload))
	hardware := release.Hardware()
	board.Bytes(hardware.Next())
	board.Flag(release.For(buffer[:4]))
	if s := release.Image.Stream(board.Input()); s != nil {
		board.Bytes(s.Root)
	}
	facts.Product, facts.Hardware, facts.SlotSize = store[:8], store[8:16], board.Input()
	floors.Sequence = board.Input()
	show(manifest.Check(&release, &facts, &floors))
}

func sheets() {
	show(verify.BeginSheet(&envelope, reader()))
	count()
	show(sheet.Parse(envelope.Payload))
	board.Output(sheet.Length)
}
