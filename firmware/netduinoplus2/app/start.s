// The front of the program: the vectors, which a boot stage would have, and what runs
// as an interrupt; then the image, with its header (docs/format/raw-image.md), which
// the build completes.
.syntax unified
.cpu cortex-m3
.thumb

.section .isr_vector, "ax", %progbits
    .long _stack_top
    .long Start
    .rept 13                // NMI, HardFault, ..., PendSV
    .long Fault
    .endr
    .long Tick              // SysTick
    .rept 82                // IRQ 0 to 81
    .long Fault
    .endr

.org 0x400
.global image_header
image_header:
    .ascii "RNLI"
    .byte 1, 32             // format, length of the header
    .short 0
    .long 0                 // size: the build fills it in
    .long image_header      // load address
    .long Start             // entry
    .long _stack_top        // stack
    .long 0xFFFFFFFF
    .long 0                 // CRC-32: the build fills it in

// What tells builds of the example apart: a version for people, and what is
// wrong with it, for tests.
.global image_info
image_info:
    .ascii "0.0.0\0\0\0\0\0\0\0\0\0\0\0"
    .long 0

// Start paints the stack, so that its high-water mark can be seen, and enters Go. It
// stands in front, so that an image that is cut short for a test still has its entry.
.global Start
.thumb_func
Start:
    ldr r0, =_stack_bottom
    ldr r1, =0xA5A5A5A5
    mov r2, sp
1:  str r1, [r0]
    adds r0, #4
    cmp r0, r2
    blo 1b
    ldr r0, =Reset_Handler
    bx r0
    .ltorg

// HANDOVER: the last 32 bytes of RAM (firmware/chip/handover.go).
.equ HANDOVER, 0x2000FFE0
.equ PANIC,    0x50414E49
.equ WATCHDOG, 0x57444F47
.equ PERIODS,  100          // of 80 ms (firmware/stm32f405/clock.go)

// Any fault, and a panic of a Go program, which is an undefined instruction. The
// stack may be what is broken, so none is used.
.section .text.Fault
.global Fault
.thumb_func
Fault:
    ldr r0, =PANIC
Leave:
    ldr r1, =HANDOVER
    str r0, [r1]
    ldr r1, =0xE000ED0C     // AIRCR
    ldr r0, =0x05FA0004     // SYSRESETREQ
    str r0, [r1]
    dsb
1:  b 1b

// Every 80 ms: the clock's count, and the guard's. After 8 s without Feed the image
// is taken for stuck.
.section .text.Tick
.global Tick
.thumb_func
Tick:
    ldr r1, =HANDOVER
    ldr r0, [r1, #16]       // Own[0]
    adds r0, #1
    str r0, [r1, #16]
    ldr r0, [r1, #8]        // Missed
    adds r0, #1
    str r0, [r1, #8]
    cmp r0, #PERIODS
    blo 2f
    ldr r0, =WATCHDOG
    ldr r1, =Leave + 1
    bx r1
2:  bx lr

// The runtime's last word, when main returns: nothing may.
.section .text.SemihostingCall
.global SemihostingCall
.thumb_func
SemihostingCall:
    udf #0
