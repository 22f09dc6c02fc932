//go:build tinygo

package stm32f405

import (
	"device/arm"

	"github.com/runnel-fota/runnel/firmware/chip"
)

// Rates. The chip is brought to 168 MHz from its own 16 MHz oscillator. QEMU 7.2 has
// SysTick at 168 MHz whatever is set.
const (
	hclk      = 168_000_000
	apb2      = hclk / 2
	tick      = 80_000 // us, a period of SysTick: its 24 bits hold no more than 99 ms
	tickLoad  = hclk/1_000_000*tick - 1
	perMicro  = hclk / 1_000_000
	pllConfig = 16 | 336<<6 | 7<<24 // 16 MHz / 16 * 336 / 2; and / 7 = 48 MHz for the RNG
)

// Start brings the chip to its clock and lets SysTick run. It is called once, first.
func Start() {
	reg(flashIf).Set(0x705) // five wait states, caches: before the clock goes up (3.5.1)
	reg(rcc + 0x04).Set(pllConfig)
	reg(rcc).Set(reg(rcc).Get() | 1<<24)   // PLLON
	ready(reg(rcc), 1<<25)                 // where it never is, the switch below does nothing
	reg(rcc + 0x08).Set(2 | 5<<10 | 4<<13) // SW: PLL; APB1 / 4, APB2 / 2
	ready(reg(rcc+0x08), 2<<2)
	reg(rcc + 0x30).Set(reg(rcc+0x30).Get() | 1<<0) // GPIOA
	reg(rcc + 0x34).Set(reg(rcc+0x34).Get() | 1<<6) // RNG
	reg(rcc + 0x44).Set(reg(rcc+0x44).Get() | 1<<4) // USART1
	shared().Own[ticks].Set(0)
	reg(systick + 4).Set(tickLoad)
	reg(systick + 8).Set(0)
	reg(systick).Set(1<<2 | 1<<1 | 1<<0) // of the processor's clock, with interrupt
	reg(rng).Set(1 << 2)                 // RNGEN
}

// ticks is which of the handover's own words counts SysTick's periods; start.s does it.
const ticks = 0

// Clock counts milliseconds since Start.
type Clock struct{ millis chip.Millis }

// Micros is the time since Start; it wraps after 71 minutes.
func (c *Clock) Micros() uint32 { return micros() }

func micros() uint32 {
	for {
		n := shared().Own[ticks].Get()
		left := reg(systick + 8).Get()
		// A period that has ended and is not counted yet: its interrupt comes now.
		if reg(scb+0x04).Get()&(1<<26) == 0 && shared().Own[ticks].Get() == n {
			return n*tick + (tickLoad-left)/perMicro
		}
	}
}

// Millis never goes back. It must be asked once in 71 minutes at least.
func (c *Clock) Millis() uint64 { return c.millis.At(micros()) }

// Nap lets the CPU sleep for so many milliseconds, 4,000,000 at most. It wakes with
// each tick, so that none that comes between the look at the clock and the sleep is
// missed.
func Nap(ms uint32) {
	from := micros()
	for micros()-from < ms*1000 {
		arm.Asm("wfi")
	}
}
