// The front of an image: its header (docs/format/raw-image.md), which the build
// completes, and the first instructions.
.syntax unified
.cpu cortex-m0
.thumb

.section .isr_vector, "a", %progbits
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

// Start paints the stack, so that its high-water mark can be seen, and enters Go.
.section .text.Start
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

// The runtime's last word, when main returns, and a fault's: as a panic.
.section .text.SemihostingCall
.global SemihostingCall
.thumb_func
SemihostingCall:
    udf #0
