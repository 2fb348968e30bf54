// A digit through the tied autoencoder, by ONNX Runtime, without a server.
//
//   npm install --ignore-scripts && node reconstruct.mjs autoencoder.onnx < numbers
//
// (The script that is left out fetches what a GPU needs.)
// The file comes from Python: keras_shared.export(model, "autoencoder.onnx", format="onnx") of
// keras_shared.load("tied_autoencoder_mnist"). It stores each kernel once; the decoder reads it
// through a Transpose. 784 numbers from 0 to 1 go in, the pixels row by row, and 784 come out.
import { readFileSync } from "node:fs";
import ort from "onnxruntime-node";

const [file] = process.argv.slice(2);
const pixels = readFileSync(0, "utf8").trim().split(/\s+/).map(Number);
if (!file || pixels.length !== 784 || pixels.some(Number.isNaN)) {
  console.error("usage: node reconstruct.mjs FILE.onnx < 784 numbers");
  process.exit(2);
}
const session = await ort.InferenceSession.create(file);
const [input] = session.inputNames, [output] = session.outputNames;
const batch = new ort.Tensor("float32", Float32Array.from(pixels), [1, 784]);
const found = await session.run({ [input]: batch });
console.log(Array.from(found[output].data).join("\n"));
