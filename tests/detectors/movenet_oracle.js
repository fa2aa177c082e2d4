// Runs the original MoveNet with its own runtime (npm i @tensorflow/tfjs). Called by make_movenet_vectors.py.
// node movenet_oracle.js MODEL.json MODEL.bin SIDE < pictures (N x SIDE x SIDE x 3 bytes) > N x 17 x (y, x, score), JSON
const tf = require(require.resolve('@tensorflow/tfjs', { paths: [process.cwd()] }));
const fs = require('fs');

const [, , topology, weights, size] = process.argv;
const side = Number(size);

async function main() {
  await tf.setBackend('cpu');
  const described = JSON.parse(fs.readFileSync(topology));
  const data = fs.readFileSync(weights);
  const model = await tf.loadGraphModel({
    load: async () => ({
      format: described.format,
      signature: described.signature,
      modelTopology: described.modelTopology,
      weightSpecs: described.weightsManifest.flatMap((group) => group.weights),
      weightData: data.buffer.slice(data.byteOffset, data.byteOffset + data.length),
    }),
  });
  const pictures = fs.readFileSync(0);
  const bytes = side * side * 3;
  const answers = [];
  for (let start = 0; start < pictures.length; start += bytes) {
    const input = tf.tensor(new Int32Array(pictures.subarray(start, start + bytes)), [1, side, side, 3], 'int32');
    answers.push(model.execute(input).arraySync()[0][0]);
  }
  fs.writeFileSync(1, JSON.stringify(answers));
}

main();
