// Command esp32 reaches the exported API of core/esp32.
package main

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

var (
	area    flash.Area
	records esp32.OTAData
	image   esp32.ImageCheck
	pass    esp32.ImagePass
	hash    digest.SHA256
	table   esp32.Table
	binary  [esp32.TableSize]byte
	piece   [64]byte

	writer   esp32.ImageWriter
	header   esp32.ImageHeader
	head     [esp32.HeaderSize]byte
	segment  [esp32.SegmentHeaderSize]byte
	tail     [esp32.TailSize]byte
	app      esp32.AppDesc
	appBytes [esp32.AppDescSize]byte
	boots    esp32.BootDesc
	bootDesc [esp32.BootDescSize]byte
)

func main() {
	useRecords()
	useEntries()
	useImage()
	writeImage()
	useDescriptors()
	useTable()
}

func useRecords() {
	var err error
	area, err = flash.NewArea(board.Flash(), 0, board.Input())
	board.Err(err)
	records, err = esp32.NewOTAData(area, boot.Slot(board.Input()), uint8(board.Input()))
	board.Err(err)
	records.SetRoom(binary[:])
	board.Err(records.Load())
	board.Output(uint32(records.Running()))
	board.Output(uint32(records.State(boot.Slot(board.Input()))))
	done, err := records.Step(boot.Goal(board.Input()), boot.Slot(board.Input()))
	board.Flag(done)
	board.Err(err)
	board.Text(esp32.Error(board.Input()).Error())
}

func useEntries() {
	a, b := esp32.NewEntry(board.Input(), board.Input()), esp32.BlankEntry()
	if board.Bool() {
		b = esp32.InitialEntry(int32(board.Input()))
	}
	board.Output(a.Seq() + a.State() + a.CRC())
	board.Flag(a.CRCOK())
	board.Flag(a.Valid())
	board.Output(esp32.SeqCRC(board.Input()))
	board.Output(uint32(esp32.Active(&a, &b)))
	board.Output(esp32.SlotOf(board.Input(), board.Input()))
	s := esp32.Select(a, b, board.Input(), board.Bool(), board.Bool())
	board.Output(uint32(s.BootIndex))
	board.Bytes(s.After[0][:])
	board.Bytes(s.After[1][:])
	index, more := esp32.LoadOrder(s.BootIndex, board.Input(), int(board.Input()))
	board.Output(uint32(index))
	board.Flag(more)
}

func useImage() {
	pass.Begin(uint16(board.Input()), board.Input(), &hash)
	board.Err(pass.Write(piece[:]))
	image.Begin(uint16(board.Input()), board.Input())
	for board.Bool() {
		board.Fill(piece[:])
		board.Err(image.Write(piece[:]))
	}
	board.Err(image.End())
	board.Output(image.Length() + image.Offset() + uint32(image.Segments()) + uint32(image.Chip()))
	board.Flag(image.Done())
	board.Flag(image.HasHash())
	board.Flag(esp32.Mapped(uint16(board.Input()), board.Input()))
	board.Text(esp32.ChipName(uint16(board.Input())))
	board.Text(esp32.ImageError(board.Input()).Error())
}

func writeImage() {
	board.Fill(head[:])
	board.Err(header.Parse(head[:]))
	board.Output(header.FlashSize())
	header.Encode(&head)
	board.Err(writer.Begin(&header, &head))
	board.Bytes(head[:])
	for board.Bool() {
		board.Err(writer.Segment(board.Input(), board.Input(), &segment))
		board.Bytes(segment[:])
		board.Fill(piece[:])
		board.Err(writer.Data(piece[:]))
		board.Output(writer.Offset())
	}
	n, err := writer.End(&tail)
	board.Err(err)
	board.Bytes(tail[:n])
}

func useDescriptors() {
	board.Fill(appBytes[:])
	board.Flag(app.Parse(appBytes[:]))
	board.Bytes(esp32.Text(app.Version[:]))
	app.Encode(&appBytes)
	board.Bytes(appBytes[:])
	board.Fill(bootDesc[:])
	board.Flag(boots.Parse(bootDesc[:]))
	boots.Encode(&bootDesc)
	board.Bytes(bootDesc[:])
}

func useTable() {
	board.Fill(binary[:])
	entry, err := table.Parse(binary[:], board.Input())
	board.Output(uint32(entry))
	board.Err(err)
	board.Err(table.Encode(&binary))
	board.Bytes(binary[:])
	if p := table.Find(uint8(board.Input()), uint8(board.Input())); p != nil {
		board.Bytes(p.Name())
	}
	board.Output(table.AppCount() + uint32(table.Slots()))
	board.Text(esp32.TableError(board.Input()).Error())
	line, err := table.ParseCSV(binary[:], board.Input())
	board.Output(uint32(line))
	board.Err(err)
	n, err := table.EncodeCSV(binary[:])
	board.Err(err)
	board.Output(uint32(n))
	board.Text(esp32.CSVError(board.Input()).Error())
}
