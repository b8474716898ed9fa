/** What lies beside the suite; written when it is laid out (see ../lay-out.ts). */

/** A model file (see ../../tiny-model.ts), by its path and by its address. */
export const modelPath: string;
export const modelAddress: string;

/** A program that speaks the protocol: answer.ts, run by Node. */
export const answerCommand: readonly string[];
